# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What an objective refuses to compute, because the number would not be what was meant.

In the order in which a call meets it: names that nobody reads; values that are no tensors; tensors
that are missing; options that a term would not see; then `check`, which holds what a term reads
against its `Contract` and the vocabulary, before any loss runs. Shapes and dtypes always, values
where asking is free, on a CPU and not compiled. At last, of what torch raised, or of a total that
is NaN, which tensor is to blame. Every error says what was asked, what was found and what to write.
"""

from __future__ import annotations

import difflib
import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.evaluation.chunks import MADE_OF, made_by_chunks
from lightning_losses.evaluation.values import not_finite, not_positive, out_of_range, tensors_of
from lightning_losses.named_tensors import NAMED_TENSORS, describe
from lightning_losses.softmax import FLOATS, STATISTICS, float_of, may_ask, require_tensor
from lightning_losses.term import Term

Terms = Mapping[str, Term]

#: Where an option belongs that was passed to the call; NAME stands for a term.
ELSEWHERE = {
    "ignore_index": "build_objective(..., ignore_index=...)",
    "reduction": "build_objective(..., reduction=...)",
    "kernel": "build_objective(..., kernel=...)",
    "weight": "loss.NAME.class_weight=[...], or sample_weight= (N,) in the call",
    "weights": "loss.NAME.class_weight=[...], or sample_weight= (N,) in the call",
    "class_weight": "loss.NAME.class_weight=[...]",
    "class_weights": "loss.NAME.class_weight=[...]",
    "label_smoothing": "loss.NAME.label_smoothing=...",
    "bias": "head_bias=",
    "input_ids": "target=",
    "labels": "target=",
    "label": "target=",
    "y": "target=",
    "valid": "mask=",
}
#: One number stands for all rows.
ONE_OR_MANY = ("temperature", "sample_weight")
#: Named things that are no tensors.
NO_TENSORS = frozenset({"attention", "input", "model", "module", "head"})
#: Maps of labels may be soft, a given prediction real; what a target may be is in the contract.
OF_SEVERAL_DTYPES = ("target", "label_map", "skeleton_map", *STATISTICS)
#: What the statistics are made from.
SOURCES = ("logits", "hidden", "head_weight", "head_bias")


# -- before rows: names and types ------------------------------------------------------------------


def refuse_unread(
    terms: Terms,
    named: Mapping[str, Any],
    providers: Mapping[str, nn.Module],
    watched: Collection[str] = (),
) -> None:
    """Complain of a name that nobody reads: misspelt, or an option that belongs elsewhere.

    Names of the vocabulary may be passed in vain, and those that a monitor watches. A provider that
    does not say in ``reads`` what it reads may read any other.
    """
    unknown = [n for n, value in named.items() if value is not None and n not in NAMED_TENSORS]
    if not unknown:
        return
    asked = [a for term in terms.values() for a in term.arguments + term.weighting_arguments]
    read = {argument.tensor for argument in asked}.union(watched)
    read = read.union(*(getattr(provider, "reads", ()) for provider in providers.values()))
    anything = any(not hasattr(provider, "reads") for provider in providers.values())
    for name in unknown:
        if name in read:
            continue
        place = ELSEWHERE.get(name) or _argument_of(name, terms)
        if place is not None:
            raise ValueError(f"No term reads {name}=: write {place} instead.")
        words = [*NAMED_TENSORS, *read, "normalizer"]
        close = difflib.get_close_matches(name, words, 1, 0.8 if anything else 0.6)
        if close:
            raise ValueError(f"No term reads {name}=: write {close[0]}=.")
        if not anything:
            own = ", ".join(sorted(read)) or "nothing"
            raise ValueError(
                f"No term reads {name}=: leave it out, or write a loss whose forward has a "
                f"parameter {name}. The terms read {own}; `lightning-losses names` lists what may "
                "be passed."
            )


def _argument_of(name: str, terms: Terms) -> str | None:
    """Where an argument of a loss is written, if one of the losses has it."""
    for key, term in terms.items():
        if name in inspect.signature(type(term.loss)).parameters:
            return f"loss.{key}.{name}=..."
    return None


def require_tensors(given: Mapping[str, Any]) -> None:
    """Raise TypeError for a list, an array or a number where the vocabulary has a tensor."""
    for name, value in given.items():
        word = NAMED_TENSORS.get(name)
        if word is None or word.layout == "option" or name in NO_TENSORS:
            continue
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if name in ONE_OR_MANY and number:
            continue
        require_tensor(name, value, least=1 if name in ("logits", "hidden") else 0)
        if value.is_complex():
            raise ValueError(f"{name} must be real, got {value.dtype}: write {name}.real.")
        if value.is_floating_point() and value.dtype not in FLOATS:
            raise ValueError(f"{name} must be {float_of(name, value)}.")
        if name == "temperature" and value.dtype == torch.bool:
            raise ValueError("temperature must be a number a row, got torch.bool: write float().")
    refuse_other_devices(given)


def refuse_other_devices(given: Mapping[str, Any]) -> None:
    """Raise a ValueError for tensors on several devices; numbers may be anywhere."""
    places: dict[torch.device, str] = {}
    for name, value in given.items():
        for tensor in tensors_of(value):
            if tensor.ndim and name not in NO_TENSORS - {"attention"}:
                places.setdefault(tensor.device, name)
    if len(places) > 1:
        (first, one), (other, name), *_ = places.items()
        raise ValueError(
            f"{one} is on {first} and {name} on {other}: write {name}.to({str(first)!r}), or move "
            "the batch as a whole."
        )


def refuse_given_statistics(given: Mapping[str, Any]) -> None:
    """Complain of a statistic beside the logits that it would be computed from."""
    if "valid" in given:
        raise ValueError("valid is settled from mask and target: write mask=... (bool).")
    source = next((name for name in ("logits", "hidden") if name in given), None)
    named = [name for name in STATISTICS if name in given]
    if source is not None and named:
        raise ValueError(
            f"{named[0]} was passed beside {source}, from which it is computed: leave one of them "
            "out. A tensor of another meaning needs another name, "
            f"inputs={{'{named[0]}': 'mine'}} and mine=... in the call."
        )


# -- beside providers: what is missing, what would not be seen -------------------------------------


def missing_tensors(
    missing: Iterable[tuple[str, nn.Module, str]],
    given: Mapping[str, Any],
    there: Collection[str] = (),
) -> ValueError:
    """One error for all ``(term, its loss, tensor)`` that nobody passed or provides.

    What is ``there`` beside what was given is from providers.
    """
    return ValueError("\n".join(str(missing_tensor(*one, given, there)) for one in missing))


def missing_tensor(
    term: str,
    module: nn.Module,
    name: str,
    given: Mapping[str, Any],
    there: Collection[str] = (),
) -> ValueError:
    """The error for a named tensor that nobody passed or provides."""
    passed = ", ".join(sorted(k for k, v in given.items() if v is not None)) or "nothing"
    if name in STATISTICS:
        fix = "pass logits=... (or hidden=... and head_weight=...) and target=..."
    elif name in MADE_OF and MADE_OF[name][0] in {*given, *there}:
        hidden, weight, _ = MADE_OF[name]
        fix = (
            f"it needs whole rows of logits, which {hidden} and {weight} never hold; pass "
            f"{name}=self.head({hidden}), or remove the term"
        )
    else:
        fix = f"write self.compute_loss(..., {name}=...)"
    if given.get("logit_map") is not None and name in ("logits", "target", *STATISTICS):
        # Beside maps, rows are the pixels; another term may still read the maps.
        fix += "; from the maps: logits=logit_map.movedim(1, -1), target=label_map"
    return ValueError(
        f"Term {term!r} ({type(module).__name__}) needs {describe(name)}. compute_loss got "
        f"{passed}. To fix it: {fix}."
    )


def refuse_some_classes(terms: Terms, tensors: Mapping[str, Any]) -> None:
    """Statistics merge what ranks say of their classes; a loss that reads logits needs them all."""
    if "class_range" not in tensors:
        return
    for name, term in terms.items():
        if "logits" in made_by_chunks(term, tensors):
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) reads whole rows of logits, and each "
                "rank has the head of some classes: pass the whole head, head_weight.full_tensor() "
                "of a DTensor, without class_range; its logits are made a few rows at a time."
            )
    if "logits" not in tensors:
        return
    for name, term in terms.items():
        soft = term.target_transform is not None
        if "logits" in term.read or soft:
            what = "makes soft targets" if soft else "reads whole rows of logits"
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) {what}, and each rank has the logits "
                "of some classes: write logits=logits.redistribute(placements=[Replicate(), ...]), "
                "with Shard(0) along dimensions of the mesh that split rows, and Replicate() for "
                "the classes."
            )


def refuse_options_with_raw_logits(terms: Terms, tensors: Mapping[str, Any]) -> None:
    """Statistics know a soft-cap and the like; a loss that reads logits gets them as passed."""
    if "logits" in tensors and "head_bias" in tensors and "hidden" not in tensors:
        raise ValueError(
            "head_bias goes with hidden and head_weight; beside logits nobody adds it: pass "
            "logits=logits + head_bias."
        )
    options = [name for name in ("softcap", "logit_scale", "temperature") if name in tensors]
    if not options or "logits" not in tensors:
        return
    for name, term in terms.items():
        if "logits" in term.read:
            raise ValueError(
                f"{options[0]} was passed, but term {name!r} reads the logits themselves, which it "
                f"does not change: pass finished logits and leave {options[0]} out."
            )


# -- before a loss: contracts ----------------------------------------------------------------------


def check(
    terms: Terms, tensors: Mapping[str, Any], valid: Tensor | None, ignore_index: int
) -> None:
    """Hold what terms read against their contracts; see the module.

    Args:
        terms: by name.
        tensors: flattened, with everything that the terms require.
        valid: ``(N,)`` rows that count; others may hold anything. None: every row.
        ignore_index: of the objective.

    Raises:
        ValueError: which names the term, the tensor and what to write.
    """
    names: dict[str, None] = {}  # in order
    for name, term in terms.items():
        sources = (*SOURCES, "target") if term.statistics else ()
        made = [part for logits in made_by_chunks(term, tensors) for part in MADE_OF[logits]]
        read = [n for n in (*term.read, *sources, *made) if n in tensors]
        names.update(dict.fromkeys(read))
        _check_dtypes(name, term, read, tensors)
        _check_columns(name, term, tensors)
        _check_classes(name, term, tensors)
        _check_target(name, term, tensors, ignore_index)
    for name in sorted(names):
        for tensor in tensors_of(tensors[name]):
            error = not_finite(name, tensor, valid) if may_ask(tensor) else None
            if error is not None:
                raise error
    temperature = tensors.get("temperature")
    if isinstance(temperature, Tensor) and may_ask(temperature):
        # Rows that do not count may hold anything here too.
        low = temperature if valid is None else torch.where(valid, temperature, 1)
        if not bool(((low > 0) & low.isfinite()).all()):
            raise not_positive(low)


def _check_dtypes(name: str, term: Term, read: Collection[str], tensors: Mapping[str, Any]) -> None:
    """Floats where the vocabulary says float, integers where it says int64, one device for all."""
    device = next((tensors[n].device for n in SOURCES if n in tensors), None)
    for tensor in read:
        value, word = tensors[tensor], NAMED_TENSORS.get(tensor)
        if word is None or not isinstance(value, Tensor):
            continue
        want = "any" if tensor in OF_SEVERAL_DTYPES else word.shape.rpartition(" ")[2]
        number, fix = value.is_floating_point(), ""
        if want == "float" and value.dtype not in FLOATS:
            need = float_of(tensor, value)
            raise ValueError(f"Term {name!r} ({type(term.loss).__name__}) needs {tensor} {need}.")
        if want == "int64" and (number or value.dtype == torch.bool or value.is_complex()):
            fix = "long()"
        elif want == "bool" and value.dtype != torch.bool:
            fix = "bool()"
        elif device is not None and value.device != device:
            want, fix = f"on {device}", f"to({str(device)!r})"
        if fix:
            found = value.device if want.startswith("on ") else value.dtype
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) needs {tensor} {want}, got {found}: "
                f"write {tensor}.{fix}."
            )


def _check_columns(name: str, term: Term, tensors: Mapping[str, Any]) -> None:
    """Groups of tensors that must have as many columns; one column beside many would broadcast."""
    for group in term.contract.same_columns if term.contract is not None else ():
        made = {n: MADE_OF[n][1] for n in made_by_chunks(term, tensors)}
        # A head has its classes first.
        held = [(n, 1) if n in tensors else (made.get(n, n), 0) for n in group]
        given = {n: tensors[n] for n, _ in held if isinstance(tensors.get(n), Tensor)}
        columns = {n: given[n].shape[at : at + 1] for n, at in held if n in given}
        if len({*columns.values()}) > 1:
            shapes = ", ".join(f"{n} {tuple(t.shape)}" for n, t in given.items())
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) needs {' and '.join(given)} with as "
                f"many columns, got {shapes}: pass both over the same classes, in the same order."
            )


def _check_classes(name: str, term: Term, tensors: Mapping[str, Any]) -> None:
    """Two classes at least, where their softmax or an index of them is what a loss looks at."""
    contract, reads = term.contract, "logits" in term.read or term.statistics
    if contract is None or not reads or {"binary", "map"} & {*contract.target}:
        return
    by_class = term.statistics or contract.head == "softmax" or "class" in contract.target
    logits = tensors.get("logits")
    if isinstance(logits, Tensor) and logits.ndim == 1 and by_class:
        raise ValueError(
            f"Term {name!r} ({type(term.loss).__name__}) needs logits (N, C), a column a class, "
            f"got {tuple(logits.shape)}: for yes-or-no scores write loss=bce."
        )
    if _columns(tensors) == 1 and by_class:
        raise ValueError(
            f"Term {name!r} ({type(term.loss).__name__}) got one column of logits, whose softmax "
            "is 1 whatever it holds, so that nothing would be learned: for yes or no write "
            "loss=bce (or binary_focal, dice, anyloss), or pass a column a class."
        )


#: Kinds of target as errors describe them.
KINDS = {
    "class": "class indices (int64) (N,)",
    "soft": "soft targets (N, C), float",
    "binary": "yes or no in [0, 1], shaped as the logits",
    "level": "ordered levels (int64) (N,)",
    "label": "labels (int64) (N,)",
    "real": "real numbers",
}


def _check_target(name: str, term: Term, tensors: Mapping[str, Any], ignore_index: int) -> None:
    """The step's target is of a kind that the term, or its target transform, takes."""
    kinds = [kind for kind in term.target_kinds if kind in KINDS]
    target = tensors.get("target")
    if target is None or not kinds:
        return
    columns = _columns(tensors)
    kind = next((k for k in kinds if _is_kind(k, target, columns, tensors)), None)
    if kind is None:
        raise ValueError(
            f"Term {name!r} ({type(term.loss).__name__}) needs "
            f"{' or '.join(KINDS[k] for k in kinds)}, got target {target.dtype} "
            f"{tuple(target.shape)}{_beside(tensors)}: {_instead(kinds, target, columns)}."
        )
    if kind in ("soft", "real") and target.is_floating_point() and ignore_index != DEFAULT_IGNORE:
        raise ValueError(
            f"ignore_index={ignore_index} marks class indices, and the target is {target.dtype} "
            f"{tuple(target.shape)}, of which it would mark nothing: write mask=... (bool, one a "
            "row), and leave ignore_index out."
        )
    if not may_ask(target) or not target.numel():
        return
    if kind == "class" and columns is not None:
        error = out_of_range(target, columns, ignore_index)
    else:
        error = _negative(kind, target)
    if error is not None:
        raise error


#: The `ignore_index` of an objective that nobody set.
DEFAULT_IGNORE = -100


def _columns(tensors: Mapping[str, Any]) -> int | None:
    """The number of classes of the step, of all ranks; None for binary scores or none at all."""
    logits, head = tensors.get("logits"), tensors.get("head_weight")
    held = tensors.get("class_range")
    if held is not None:
        return int(held.num_classes)
    if isinstance(logits, Tensor):
        return logits.shape[-1] if logits.ndim > 1 else None
    if not isinstance(head, Tensor) or "hidden" not in tensors:
        return None
    return head.shape[0]


def _is_kind(kind: str, target: Tensor, columns: int | None, tensors: Mapping[str, Any]) -> bool:
    number = target.is_floating_point()
    index = not number and target.dtype != torch.bool and target.ndim == 1
    if kind == "class":  # there is no class among binary scores (N,) and (N, 1)
        return index and not ("logits" in tensors and columns in (None, 1))
    if kind in ("level", "label"):
        return index
    if kind == "soft":
        return target.ndim == 2 and columns in (None, target.shape[1])
    if kind == "real":
        return target.dtype != torch.bool
    logits = tensors.get("logits")
    if not isinstance(logits, Tensor):
        return True
    one = target.ndim == 1 and logits.shape[1:] == (1,)
    return one or target.shape == logits.shape


def _beside(tensors: Mapping[str, Any]) -> str:
    for name in ("logits", "hidden"):
        if isinstance(tensors.get(name), Tensor):
            return f" beside {name} {tuple(tensors[name].shape)}"
    return ""


def _instead(kinds: Collection[str], target: Tensor, columns: int | None) -> str:
    """What to write instead of a target that is of no kind that the term takes."""
    if "binary" in kinds and target.ndim == 2:
        return "pass logits (N,) with target (N,), or (N, L) with (N, L)"
    indices = {"class", "level", "label"} & set(kinds)
    if target.ndim == 2 and "class" in kinds and "soft" not in kinds:
        return "use ce, or pass target.argmax(-1)"
    if target.ndim == 2 and "soft" in kinds and columns is not None:
        return f"pass a weight for each of the {columns} classes"
    if indices and target.ndim == 1 and columns is None and "class" in kinds:
        return "pass logits (N, C) with a column a class; bce takes binary scores (N,)"
    if indices and target.ndim == 1 and target.dtype == torch.bool:
        return "write target.long() if False and True are classes 0 and 1"
    if indices and target.ndim == 1:
        return "write target.long(), or for real values +target@loss.NAME.target_transform=hl_gauss"
    if "binary" in kinds:
        return "pass logits (N,) with target (N,), or (N, L) with (N, L)"
    return "see `lightning-losses show KEY`"


def _negative(kind: str, target: Tensor) -> ValueError | None:
    """Weights of classes, and levels, that are below 0."""
    if kind not in ("soft", "level") or not bool((target < 0).any()):
        return None
    return ValueError(
        f"target must be at least 0, found {target.min().item()} among {KINDS[kind]}: mark rows "
        "that do not count by mask=... (bool)."
    )


def refuse_transformed_target(name: str, term: Term, target: Tensor | None) -> None:
    """Complain of a target transform that makes soft targets where log p of one class is meant."""
    if "log_prob" not in term.statistics or target is None or target.ndim == 1:
        return
    if term.contract is not None and "soft" not in term.contract.target:
        raise ValueError(
            f"Term {name!r} ({type(term.loss).__name__}) needs class indices (N,), got soft "
            f"targets {tuple(target.shape)} of its target_transform: use ce, which takes them."
        )


# -- after a failure: which tensor is to blame -----------------------------------------------------


def explain(
    tensors: Mapping[str, Any], valid: Tensor | None, ignore_index: int, class_target: bool
) -> ValueError | None:
    """The error that names the offending tensor, or None if the tensors look sound.

    For losses without a contract, and devices where asking beforehand would have stalled.

    Args:
        tensors: flattened.
        valid: ``(N,)`` rows that count; None: every row.
        ignore_index: of the objective.
        class_target: whether an integer target is a column of the logits.
    """
    for name, value in tensors.items():
        for tensor in tensors_of(value):
            error = not_finite(name, tensor, valid)
            if error is not None:
                return error
    temperature, target = tensors.get("temperature"), tensors.get("target")
    if isinstance(temperature, Tensor) and not bool((temperature > 0).all()):
        return not_positive(temperature)
    columns = _columns(tensors)
    if not class_target or columns is None or not isinstance(target, Tensor):
        return None
    if target.is_floating_point() or not target.numel():
        return None
    return out_of_range(target, columns, ignore_index)
