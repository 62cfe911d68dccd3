# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which pass computes what: the one place that decides, before anything is computed.

There are four ways to the numbers that terms and monitors ask for:

- *one pass* forms values and gradients of all terms that read softmax statistics, chunk by chunk;
- *torch's own sum* is the whole of a lone cross-entropy on small logits;
- *shared statistics*, one pass forward and one backward, serve any other use of them;
- *a pass without graph* makes what only monitors want and no other pass brings along.

Which kernel makes a pass follows from shapes and device, in `softmax.resolve_kernel`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_losses.contract import HeadKind
from lightning_losses.evaluation.chunks import made_by_chunks
from lightning_losses.evaluation.rows import Rows
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.softmax import STATISTICS, TWO_PASSES, Problem, resolve_kernel
from lightning_losses.term import Term

Terms = Mapping[str, Term]


class Shared(NamedTuple):
    """Terms that read statistics of the same logits, target and class weights."""

    target_transform: Callable[[Tensor], Tensor] | None
    class_weight: Any
    """What weighted_log_prob is weighted by, see `class_weight_of`; None if no term reads it."""
    terms: Terms
    want: tuple[str, ...]
    """Statistics of the pass, with those that monitors get along; empty if there is none."""


class Plan(NamedTuple):
    """One evaluation, decided; see `plan_passes`. A term is in exactly one of the three ways."""

    rows: Rows
    terms: Terms
    kernel: str
    reduction: str
    watched: frozenset[str]
    class_target: bool
    """Whether an integer target says which column of the logits is right."""
    head: HeadKind
    """What the terms make of the logits."""
    problem: Problem | None
    """The step's own logits and target for a kernel; None where nothing asks for statistics."""
    one_pass: Terms
    one_pass_want: tuple[str, ...]
    torch_sum: Terms
    shared: tuple[Shared, ...]
    unseen: tuple[str, ...]
    """Statistics that monitors want and no pass brings along."""
    given: tuple[str, ...]
    """Statistics that monitors want and the step passed itself, without logits."""


def plan_passes(
    rows: Rows,
    terms: Terms,
    kernel: str,
    reduction: str = "mean",
    watched: frozenset[str] = frozenset(),
    *,
    apart: bool = False,
) -> Plan:
    """Decide how each term and each watched statistic is computed.

    Args:
        rows: with everything that the terms require, see `provide`.
        terms: by name.
        kernel: of the objective, a name out of `softmax.KERNELS`.
        reduction: ``mean``, ``sum`` or ``none``.
        watched: statistics and named tensors that monitors want.
        apart: each term must have a graph of its own, so never the one pass.
    """
    class_target = names_class(terms, rows.all_logits)
    target = _index_target(rows, class_target)
    head = head_of(terms, rows.all_logits)
    # Where no softmax is taken its statistics would be numbers of something else, but for argmax.
    asked = watched if head == "softmax" else watched & {"prediction"}
    watched_statistics = _available(rows, target, asked)
    problem = None
    # Without logits the step passes statistics itself, such as the log_prob of a Gaussian policy.
    logits = "logits" in rows.tensors or "hidden" in rows.tensors
    readers = [term for term in terms.values() if term.statistics and logits]
    if watched_statistics or any(not term.target_transform for term in readers):
        problem = rows.problem(target)
    by_torch = problem is not None and resolve_kernel(kernel, problem) == "reference"
    one_pass: Terms = {}
    torch_sum: Terms = {}
    if problem is not None and not apart and _one_pass(rows, terms, kernel, reduction):
        one_pass = {name: term for name, term in terms.items() if term.statistics}
        problem = with_class_weight(problem, *_class_weights(one_pass.values()))
    elif by_torch and _torch_sum(rows, terms, reduction):
        torch_sum = terms
    done = one_pass.keys() | torch_sum.keys()
    groups: dict[tuple[Callable[[Tensor], Tensor] | None, Any], dict[str, Term]] = {}
    for name, term in terms.items():
        if name not in done:
            transform = term.transform_for(target)
            alike = [t for t in terms.values() if t.transform_for(target) == transform]
            # Terms that read no weighted statistic go along with the first that does.
            weight = class_weight_of(term) or next(iter(_class_weights(alike)), None)
            groups.setdefault((transform, weight), {})[name] = term
    shared = []
    for (transform, weight), members in groups.items():
        want = _wanted(members.values()) if logits else ()
        # What only monitors read costs a kernel nothing in its backward pass, so it comes along;
        # torch's autograd would record each, so there it waits for a pass without graph.
        if want and transform is None and not by_torch:
            want = _wanted(members.values(), watched_statistics)
        shared.append(Shared(transform, weight, members, want))
    one_pass_want = _wanted(one_pass.values(), watched_statistics) if one_pass else ()
    # log p of a transformed target is not what a monitor means by log_prob.
    seen = {n for s in shared for n in s.want if n != "log_prob" or s.target_transform is None}
    unseen = tuple(n for n in watched_statistics if n not in seen and n not in one_pass_want)
    return Plan(
        rows=rows,
        terms=terms,
        kernel=kernel,
        reduction=reduction,
        watched=watched,
        class_target=class_target,
        head=head,
        problem=problem,
        one_pass=one_pass,
        one_pass_want=one_pass_want,
        torch_sum=torch_sum,
        shared=tuple(shared),
        unseen=unseen,
        given=tuple(n for n in STATISTICS if n in watched and n in rows.tensors),
    )


def class_weight_of(term: Term) -> Any:
    """The loss's ``class_weight`` if it reads weighted_log_prob, else None.

    Whatever it is, its ``like(tensor)`` makes weights ``(C,)`` in the dtype of a tensor.
    """
    return term.loss.class_weight if "weighted_log_prob" in term.statistics else None


def _class_weights(terms: Iterable[Term]) -> list[Any]:
    """Those of several terms, each once, in order."""
    found = [class_weight_of(term) for term in terms]
    return list(dict.fromkeys(weight for weight in found if weight is not None))


def with_class_weight(problem: Problem, weight: Any = None) -> Problem:
    """The problem with class weights; without any, as it is."""
    if weight is None:
        return problem
    like = problem.source.new_empty(0, dtype=problem.compute_dtype)
    return problem._replace(class_weight=weight.like(like))


def names_class(terms: Terms, logits: Tensor | None) -> bool:
    """Whether some term takes an integer target for a column of the logits, or none has a target.

    One column is a binary score, whose column only a log-probability is ever asked for.
    """
    if logits is not None and logits.ndim == 2 and logits.shape[1] == 1:
        return any("log_prob" in term.statistics for term in terms.values())
    said = [term.class_target for term in terms.values()]
    return any(said) or all(answer is None for answer in said)


def head_of(terms: Terms, logits: Tensor | None) -> HeadKind:
    """What the terms that read logits make of them; a softmax goes before a sigmoid of another.

    One column, ``(N,)`` or ``(N, 1)``, has no softmax: there a loss of either makes a sigmoid. A
    loss that says nothing leaves the question to others; alone, several columns are a softmax and
    one is a number, which it may be a regression of.
    """
    said = {
        "softmax" if term.contract is None else term.contract.head
        for term in terms.values()
        if term.statistics or (term.contract is not None and "logits" in term.read)
    }
    if logits is not None and (logits.ndim == 1 or logits.shape[1] == 1):
        return "sigmoid" if said - {"none"} else "none"
    if said == {"none"}:
        return "none"
    return "softmax" if "softmax" in said or not said else "sigmoid"


def _one_pass(rows: Rows, terms: Terms, kernel: str, reduction: str) -> bool:
    """Whether values and gradients of all terms that read statistics can be formed in one pass.

    That pass makes the logits once where two passes make them twice. It needs every use of the
    statistics to be a sum over rows with a divisor known beforehand.
    """
    tensors = rows.tensors
    users = [term for term in terms.values() if term.statistics]
    return (
        len(users) > 0  # torch 2.11 cannot compile bool() of a list
        and "hidden" in tensors
        and "logits" not in tensors
        and "head_weight" in tensors
        and "class_range" not in tensors  # one gather for all rows, not one a chunk
        # Formed before a GradScaler's factor arrives, float16 gradients of p / N would be 0.
        and tensors["hidden"].dtype != torch.float16
        and kernel not in TWO_PASSES
        and reduction != "none"
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch._C._are_functorch_transforms_active()  # the pass has no rule for them
        and (tensors["hidden"].requires_grad or tensors["head_weight"].requires_grad)
        and (rows.weight is None or not rows.weight.requires_grad)
        and len(_class_weights(users)) < 2
        and all(
            term.row_function
            and term.transform_for(tensors.get("target")) is None
            and _reads_rows_only(term, tensors)
            and not made_by_chunks(term, tensors)
            for term in users
        )
    )


def _reads_rows_only(term: Term, tensors: Mapping[str, Any]) -> bool:
    """Whether all that a term reads beside statistics are rows without gradient.

    Known as such by the vocabulary: a pass over chunks of rows cuts them, and must not cut a tensor
    that is a whole.
    """
    read = {a.tensor for a in term.arguments} & tensors.keys() - set(STATISTICS)
    words = {name: NAMED_TENSORS.get(name) for name in read}
    return all(
        word is not None
        and word.layout in ("rows", "vectors")
        and isinstance(tensors[name], Tensor)
        and not tensors[name].requires_grad
        for name, word in words.items()
    )


def _torch_sum(rows: Rows, terms: Terms, reduction: str) -> bool:
    """Whether the sum over rows by torch's own kernel is all that the evaluation is.

    Equal to the last bit to ``F.cross_entropy`` in a plain step, and as fast.
    """
    if len(terms) != 1:
        return False
    (term,) = terms.values()
    tensors = rows.tensors
    target = tensors.get("target")
    return (
        term.torch_sums
        and reduction != "none"
        and rows.weight is None
        and term.target_transform is None
        and not term.weighs_rows
        and target is not None
        and "logits" in tensors
        and target.ndim == 1
        and not target.is_floating_point()
        and not any(n in tensors for n in ("temperature", "softcap", "logit_scale"))
        and getattr(term.loss, "row_divisors", lambda _: None)(target) is None
    )


def _wanted(terms: Iterable[Term], more: Collection[str] = ()) -> tuple[str, ...]:
    """Statistics that the terms read, and more, in order."""
    names = {name for term in terms for name in term.statistics}.union(more)
    return tuple(name for name in STATISTICS if name in names)


def _available(rows: Rows, target: Tensor | None, names: Collection[str]) -> tuple[str, ...]:
    """Those of the names that are statistics which these logits and this target have."""
    logits = rows.tensors.get("logits")
    classes = logits.ndim == 2 if logits is not None else "hidden" in rows.tensors
    if not classes or not names:
        return ()
    return tuple(n for n in STATISTICS if n in names and (n != "log_prob" or target is not None))


def _index_target(rows: Rows, class_target: bool) -> Tensor | None:
    """The step's target if it says something about classes; None for other numbers."""
    target = rows.tensors.get("target")
    if target is None or target.ndim > 1:
        return target
    return None if target.is_floating_point() or not class_target else target
