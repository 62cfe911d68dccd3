# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Objective`: the weighted sum of terms, as an ordinary `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.evaluation.rows import Batch, prepare
from lightning_losses.evaluation.terms import REDUCTIONS, Evaluation
from lightning_losses.evaluation.validation import (
    explain,
    refuse_half_dressed,
    refuse_target,
    refuse_unread,
)
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.record import LossRecord
from lightning_losses.softmax import KERNELS, STATISTICS, TWO_PASSES, in_autocast_dtype
from lightning_losses.term import Term, missing_tensor

#: See `Objective.show`.
Inspector = Callable[[Mapping[str, Any], Batch, "float | Tensor | None"], None]


class Objective(nn.Module):
    """The weighted sum of losses over one batch. Works without Lightning as a plain criterion.

    Args:
        terms: losses by name; a bare module gets weight 1.
        kernel: how softmax statistics are computed: ``auto``, ``reference``, ``chunked``,
            ``triton``. The numbers do not depend on it.
        reduction: ``mean`` over the rows that count (weighted by ``sample_weight``), ``sum``, or
            ``none`` for ``(N,)``, with 0 in the rows that do not count.
        ignore_index: rows with this target do not count.
        providers: modules that make a named tensor that the step does not pass, by its name.

    Raises:
        ValueError: no terms, unknown kernel or reduction.
    """

    def __init__(
        self,
        terms: Mapping[str, Term | nn.Module],
        kernel: str = "auto",
        reduction: str = "mean",
        ignore_index: int = -100,
        providers: Mapping[str, nn.Module] | None = None,
    ) -> None:
        super().__init__()
        if not terms:
            raise ValueError(
                "An objective needs at least one term, found none. Write loss=ce, or "
                "Objective({'ce': CrossEntropy()})."
            )
        for name in terms:
            if not str(name).isidentifier() or hasattr(nn.ModuleDict, name):
                raise ValueError(
                    f"A term cannot be called {name!r}: write a word of letters, digits and _ that "
                    "is no method of a dict."
                )
        if kernel not in KERNELS:
            raise ValueError(f"Unknown kernel {kernel!r}; write one of {', '.join(KERNELS)}.")
        if isinstance(ignore_index, bool) or not isinstance(ignore_index, int):
            raise ValueError(f"ignore_index is one label, an int, got {ignore_index!r}.")
        if reduction not in REDUCTIONS:
            raise ValueError(f"Unknown reduction {reduction!r}; write one of {REDUCTIONS}.")
        self.terms = nn.ModuleDict(
            {k: t if isinstance(t, Term) else Term(t) for k, t in terms.items()}
        )
        self.providers = nn.ModuleDict(dict(providers or {}))
        self.kernel, self.reduction, self.ignore_index = kernel, reduction, ignore_index
        self.reads_module = any("module" in term.required for _, term in self.named_terms())
        # Kernels upcast hidden states and logits block by block; losses get whole tensors upcast.
        read = frozenset[str]().union(*(term.read for _, term in self.named_terms()))
        self._upcast = read - {"hidden", "head_weight", "head_bias", "input"}
        said = [term.class_target for _, term in self.named_terms()]
        self._names_class = any(said) or all(answer is None for answer in said)
        self._asks_log_prob = any("log_prob" in term.statistics for _, term in self.named_terms())
        self._timed = [m for m in self.modules() if m is not self and hasattr(m, "set_step")]
        self._watched: dict[str, frozenset[str]] = {}
        self._shown: dict[str, Inspector] = {}

    # -- the host side: called before forward, never traced ------------------------------------

    def set_step(self, step: int) -> None:
        """Write every weight for this optimizer step, and tell parts that change with time."""
        for part in self._timed:
            part.set_step(step)  # type: ignore[operator]

    def watch(self, owner: str, *names: str) -> None:
        """Keep these statistics and named tensors in the records, for a monitor; none to stop."""
        if names:
            self._watched[owner] = frozenset(names)
        else:
            self._watched.pop(owner, None)

    def show(self, owner: str, inspector: Inspector | None) -> None:
        """Show what training evaluates to a monitor, after each evaluation; None to stop.

        The inspector gets the named tensors as they were passed, the batch as terms read it, both
        with their graph, and the normalizer: what `separately` takes. Not shown are evaluations
        without gradient and within ``torch.compile``.
        """
        if inspector is None:
            self._shown.pop(owner, None)
        else:
            self._shown[owner] = inspector

    def named_terms(self) -> list[tuple[str, Term]]:
        """The terms by name, in order."""
        return list(self.terms.items())  # type: ignore[arg-type]

    # -- the tensor side -----------------------------------------------------------------------

    def forward(
        self,
        logits: Tensor | None = None,
        target: Tensor | None = None,
        *,
        normalizer: float | Tensor | None = None,
        **named: Any,
    ) -> LossRecord:
        """Evaluate every term on the named tensors.

        Args:
            logits: ``(..., C)``; or ``hidden`` and ``head_weight`` among ``named``.
            target: ``(...)`` class indices or real values, ``(..., C)`` soft targets.
            normalizer: divides the sum over rows of all ranks instead of the number of rows that
                count; for accumulation over batches with uneven token counts.
            **named: see `lightning_losses.named_tensors`.

        Returns:
            LossRecord, whose ``total`` carries the graph.

        Raises:
            ValueError: a tensor that a term needs is missing, or one has the wrong shape, dtype or
                values.
        """
        named = {"logits": logits, "target": target, **named}
        if not torch.compiler.is_compiling():
            refuse_unread(self.named_terms(), named, self.providers.keys())
        try:
            batch = self._provide(prepare(named, self.ignore_index))
            # One island: whatever the precision plug-in says, losses compute in float32 at least.
            with torch.autocast(batch.device.type, enabled=False):
                record = self._evaluate(batch, normalizer)
                # In this order: compiled code then does not depend on who looks.
                if not torch.compiler.is_compiling() and torch.is_grad_enabled() and self._shown:
                    for inspector in list(self._shown.values()):
                        inspector(named, batch, normalizer)
        except (IndexError, RuntimeError) as error:
            if torch.compiler.is_compiling():
                raise
            raise self._explain(named) or error from error
        # Asking is free on a CPU. Elsewhere a NaN stays visible in the loss and stalls no step.
        asks = record.total.device.type == "cpu" and not torch.compiler.is_compiling()
        if asks and bool(record.total.isnan().any()):
            problem = self._explain(named)
            if problem is not None:
                raise problem
        return record

    def separately(self, batch: Batch, normalizer: float | Tensor | None) -> dict[str, Tensor]:
        """The weighted value of each term apart, with graph: their sum is the total.

        Never by the one pass that forms the gradient of the sum. Parts that keep a state from call
        to call are moved by this as by any evaluation.
        """
        evaluation = self._evaluation(batch, normalizer, {})
        terms = dict(self.named_terms())
        evaluation.add(terms)
        return dict(zip(terms, evaluation.parts, strict=True))

    def _provide(self, batch: Batch) -> Batch:
        """Make what terms need and the step did not pass, and complain of what nobody makes."""
        tensors = dict(batch.tensors)
        if batch.valid is not None:
            tensors["valid"] = batch.valid
        has_rows = "logits" in tensors or "hidden" in tensors
        for name, term in self.named_terms():
            for tensor in sorted(term.required):
                if tensor == "log_prob" and has_rows and term.target_transform is None:
                    refuse_target(name, term.loss, tensors)
                if tensor in tensors or (tensor in STATISTICS and has_rows):
                    continue
                if tensor == "valid":
                    tensors["valid"] = torch.ones(batch.rows, dtype=torch.bool, device=batch.device)
                elif tensor in self.providers:
                    tensors[tensor] = self.providers[tensor](tensors)
                else:
                    raise missing_tensor(name, term.loss, tensor, batch.tensors)
        refuse_half_dressed(self.named_terms(), tensors)
        if has_rows and "logits" not in tensors:
            tensors["hidden"] = in_autocast_dtype(tensors["hidden"])
        for name in [name for name in tensors if name in self._upcast]:
            tensors[name] = harmless(name, at_least_float32(tensors[name]), batch.valid)
        return batch._replace(tensors=tensors)

    def _explain(self, named: Mapping[str, Any]) -> ValueError | None:
        return explain(named, self.ignore_index, self._class_target(named.get("logits")))

    def _class_target(self, logits: Tensor | None) -> bool:
        """Whether some term takes an integer target for a column of the logits, or none has one."""
        binary = logits is not None and logits.ndim == 2 and logits.shape[1] == 1
        return self._asks_log_prob if binary else self._names_class

    def _evaluation(
        self,
        batch: Batch,
        normalizer: float | Tensor | None,
        watched: Mapping[str, frozenset[str]],
    ) -> Evaluation:
        by_class = self._class_target(batch.tensors.get("logits"))
        return Evaluation(batch, self.reduction, normalizer, self.kernel, watched, by_class)

    def _evaluate(self, batch: Batch, normalizer: float | Tensor | None) -> LossRecord:
        fused = self._fused_terms(batch)
        rest = {name: term for name, term in self.named_terms() if name not in fused}
        evaluation = self._evaluation(batch, normalizer, self._watched)
        if fused:
            evaluation.add_fused(fused)
        evaluation.add(rest)
        return evaluation.record({name: term.weight for name, term in self.named_terms()})

    def _fused_terms(self, batch: Batch) -> dict[str, Term]:
        """The terms whose values and gradients one pass can form; none if a term forbids it.

        That pass makes the logits once where two passes make them twice. It needs every use of
        the statistics to be a sum over rows with a divisor known beforehand.
        """
        users = {name: term for name, term in self.named_terms() if term.statistics}
        tensors = batch.tensors
        possible = (
            users
            and "hidden" in tensors
            and "logits" not in tensors
            and "head_weight" in tensors
            and "class_range" not in tensors  # one gather for all rows, not one a chunk
            # Formed before a GradScaler's factor arrives, float16 gradients of p / N would be 0.
            and tensors["hidden"].dtype != torch.float16
            and self.kernel not in TWO_PASSES
            and self.reduction != "none"
            and torch.is_grad_enabled()
            and not torch.compiler.is_compiling()
            and not torch._C._are_functorch_transforms_active()  # the pass has no rule for them
            and (tensors["hidden"].requires_grad or tensors["head_weight"].requires_grad)
            and (batch.weight is None or not batch.weight.requires_grad)
            and all(
                t.row_function and t.target_transform is None and reads_rows_only(t, tensors)
                for t in users.values()
            )
        )
        return users if possible else {}


def reads_rows_only(term: Term, tensors: Mapping[str, Any]) -> bool:
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


def harmless(name: str, value: Any, valid: Tensor | None) -> Any:
    """Vectors of rows that do not count at 0, before a loss sees them.

    The reduction is too late: the gradient of a softmax of inf is NaN, and stays so times 0.
    """
    word = NAMED_TENSORS.get(name)
    if valid is None or word is None or word.layout != "vectors" or not isinstance(value, Tensor):
        return value
    return torch.where(valid if value.ndim == 1 else valid[:, None], value, 0)


def at_least_float32(value: Any) -> Any:
    """Half precision as float32; anything else as it is."""
    if isinstance(value, Tensor) and value.is_floating_point() and value.element_size() < 4:
        return value.float()
    return value
