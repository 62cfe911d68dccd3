# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One evaluation of an objective: statistics, per-row values, masked reduction, weighted sum.

`ignore_index`, `mask` and `sample_weight` are applied here, once, and never in a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, world_size
from lightning_losses.evaluation.rows import Batch, masked
from lightning_losses.record import LossRecord
from lightning_losses.softmax import (
    STATISTICS,
    SoftmaxStats,
    resolve_kernel,
    row_fused,
    statistics,
)
from lightning_losses.term import Term

REDUCTIONS = ("mean", "sum", "none")

#: Marks rows that do not count for torch's own kernel. Not -100: where the objective's ignore_index
#: is another, a target of -100 is a mistake that torch would skip in silence.
SKIPPED = torch.iinfo(torch.int64).min


class Evaluation:
    """Sums the terms of one call; see `Objective.forward` for the arguments.

    `class_target`: whether an integer target says which column of the logits is right.
    """

    def __init__(
        self,
        batch: Batch,
        reduction: str,
        normalizer: float | Tensor | None,
        kernel: str,
        watched: Mapping[str, frozenset[str]],
        class_target: bool = True,
    ) -> None:
        self.batch, self.reduction, self.kernel = batch, reduction, kernel
        self.class_target = class_target
        self.world = world_size()
        self.watched = frozenset().union(*watched.values()) if watched else frozenset()
        # One that the caller knows beforehand: `sum` and `normalizer` go before a term's own.
        self.fixed = reduction == "sum" or normalizer is not None
        self.divisor = self._divisor(normalizer)
        self.parts: list[Tensor] = []  # weighted terms, with graph
        self.raw: dict[str, Tensor] = {}  # raw terms, without
        self.stats: dict[str, Tensor] = {}  # without graph, for the record

    def add(self, terms: Mapping[str, Term]) -> None:
        """Evaluate terms one by one, on statistics that they share."""
        if len(terms) == 1 and (shortcut := self._torch_sum(*terms.values())) is not None:
            ((name, term),) = terms.items()
            self._add_part(name, term, shortcut / self.divisor)
        else:
            shared = self._shared_statistics(terms)
            for name, term in terms.items():
                tensors = dict(self.batch.tensors) | shared[term.target_transform]
                if term.target_transform is not None:
                    tensors["target"] = self._transformed[term.target_transform]
                self._add_term(name, term, tensors)
        watched = [n for n in STATISTICS if n in self.watched and n not in self.stats]
        if missing := tuple(n for n in watched if self._has_classes((n,))):
            with torch.no_grad():
                problem = self.batch.problem(self._index_target())
                self.stats |= statistics(problem, missing, self.kernel)

    def add_fused(self, terms: Mapping[str, Term]) -> None:
        """Evaluate row functions of the statistics, values and gradients in one pass."""
        batch = self.batch
        names = {a.tensor for t in terms.values() for a in t.arguments} | {"target"}
        rows = {n: batch.tensors[n] for n in names - set(STATISTICS) if n in batch.tensors}
        for name, value in (("valid", batch.valid), ("sample_weight", batch.weight)):
            if value is not None:
                rows[name] = value
        divisors = {n: self._term_divisor(term, batch.tensors) for n, term in terms.items()}

        def row_function(
            stats: dict[str, Tensor], data: dict[str, Tensor]
        ) -> tuple[Tensor, Tensor]:
            values = {
                name: masked(term(data | stats), data.get("valid"), data.get("sample_weight"))
                for name, term in terms.items()
            }
            # In this order: weight / count alone would round to float32 under float64 values.
            parts = [
                v.sum() * self.world / divisors[n] * terms[n].weight for n, v in values.items()
            ]
            return torch.stack(parts).sum(), torch.stack(list(values.values())).detach()

        for name, term in terms.items():
            self._refuse_soft_target(name, term, batch.tensors)
        want = self._wanted(terms.values(), watch=True)
        total, stats, values = row_fused(
            batch.problem(self._index_target()), want, row_function, rows, self.kernel
        )
        self.stats |= stats
        self.parts.append(total)
        for name, value in zip(terms, values, strict=True):
            self.raw[name] = value.sum() * self.world / divisors[name]

    def record(self, weights: dict[str, Tensor]) -> LossRecord:
        """The finished record; on several ranks with the global values on each."""
        total = self.parts[0]
        for part in self.parts[1:]:
            total = total + part
        raw = self.raw
        if self.world > 1 and total.ndim == 0:
            local = torch.stack([total.detach(), *raw.values()])
            value, *rest = all_sum(local) / self.world
            raw = dict(zip(raw, rest, strict=True))
            total = total + (value - total).detach()  # the global value, this rank's gradient
        tensors = self.batch.tensors
        captured = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in tensors.items()
            if name in self.watched and name not in STATISTICS
        }
        if "target" in captured and not self.class_target:
            captured["target"] = captured["target"].float()  # a number, which names no class
        stats = SoftmaxStats(
            **{name: value.detach() for name, value in self.stats.items()}, valid=self.batch.valid
        )
        return LossRecord(total, raw, weights, self.batch.counted, self.batch.rows, stats, captured)

    # -- one term --------------------------------------------------------------------------------

    def _add_term(self, name: str, term: Term, tensors: dict[str, Any]) -> None:
        self._refuse_soft_target(name, term, tensors)
        values = term(tensors)
        if values.ndim == 0:
            if self.reduction == "none" or term.row_weighting is not None:
                raise ValueError(
                    f"Term {name!r} ({type(term.loss).__name__}) is one number for the batch, so "
                    "it has no values per row: write reduction='mean' and no row_weighting."
                )
            self._add_part(name, term, values, scale=1)
            return
        if values.shape != (self.batch.rows,):
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) must return ({self.batch.rows},) or a "
                f"scalar, got {tuple(values.shape)}: reduce it to one value a row."
            )
        if term.row_weighting is not None:
            values = values * term.row_weights(values, self.batch.valid, tensors)
        values = masked(values, self.batch.valid, self.batch.weight)
        if self.reduction == "none":
            self.parts.append(values * term.weight)
            self.raw[name] = values.detach().sum() / self.divisor
        else:
            self._add_part(name, term, values.sum() / self._term_divisor(term, tensors))

    def _add_part(self, name: str, term: Term, value: Tensor, scale: int | None = None) -> None:
        """A term's share of the total; sums over rows count ``world`` times, see distributed."""
        scale = self.world if scale is None else scale
        value = value * scale if scale != 1 else value
        self.raw[name] = value.detach()
        self.parts.append(value * term.weight)

    def _refuse_soft_target(self, name: str, term: Term, tensors: Mapping[str, Any]) -> None:
        target = tensors.get("target")
        if "log_prob" not in term.statistics or target is None or target.ndim == 1:
            return
        if not getattr(term.loss, "soft_target", False):
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) needs class indices (N,), got soft "
                f"targets {tuple(target.shape)}: use ce, or pass target.argmax(-1)."
            )

    # -- divisors --------------------------------------------------------------------------------

    def _divisor(self, normalizer: float | Tensor | None) -> Tensor:
        batch = self.batch
        if self.reduction == "sum":
            return torch.ones((), device=batch.device)
        if normalizer is not None:
            if not isinstance(normalizer, Tensor):
                if not normalizer >= 0:
                    raise ValueError(
                        f"normalizer divides the sum over rows and must be at least 0, got "
                        f"{normalizer}."
                    )
                normalizer = torch.full((), normalizer, device=batch.device)  # no copy that waits
            return _positive(normalizer.to(batch.device))
        own = batch.counted if batch.weight is None else batch.weight.sum()
        return _positive(all_sum(own))

    def _term_divisor(self, term: Term, tensors: Mapping[str, Any]) -> Tensor:
        """Most terms divide by the rows that count; some (class weights) by a sum of their own."""
        own = getattr(term.loss, "row_divisors", None)
        per_row = None if own is None or self.fixed else own(tensors.get("target"))
        if per_row is None:
            return self.divisor
        return _positive(all_sum(masked(per_row, self.batch.valid, self.batch.weight).sum()))

    # -- statistics ------------------------------------------------------------------------------

    def _shared_statistics(self, terms: Mapping[str, Term]) -> dict[Any, dict[str, Tensor]]:
        """Statistics with graph for each target in use: the step's, and each transformed one."""
        groups: dict[Any, list[Term]] = {}
        for term in terms.values():
            groups.setdefault(term.target_transform, []).append(term)
        self._transformed = {
            transform: transform(self.batch.tensors["target"])
            for transform in groups
            if transform is not None
        }
        shared: dict[Any, dict[str, Tensor]] = {}
        for transform, members in groups.items():
            target = self._transformed.get(transform, self._index_target())
            want = self._wanted(members, watch=False)
            if not want:
                shared[transform] = {}
                continue
            problem = self.batch.problem(target)
            # Chunked statistics that only a monitor reads cost nothing in backward, so they come
            # along in this pass; torch's autograd would record each, so there they wait.
            along = transform is None and resolve_kernel(self.kernel, problem) != "reference"
            want = self._wanted(members, watch=along)
            shared[transform] = statistics(problem, want, self.kernel)
            # log p of a transformed target is not what a monitor means by log_prob.
            own = {n: v for n, v in shared[transform].items() if not transform or n != "log_prob"}
            self.stats = own | self.stats
        return shared

    def _wanted(self, terms: Any, *, watch: bool) -> tuple[str, ...]:
        needed = {name for term in terms for name in term.statistics}
        if watch:
            extra = {name for name in self.watched if name in STATISTICS}
            needed |= {n for n in extra if self._has_classes((n,))}
        return tuple(name for name in STATISTICS if name in needed)

    def _has_classes(self, names: tuple[str, ...]) -> bool:
        """Whether there are logits for these statistics, and a class target if one needs it."""
        tensors = self.batch.tensors
        logits = tensors.get("logits")
        classes = logits.ndim == 2 if logits is not None else "hidden" in tensors
        return classes and ("log_prob" not in names or self._index_target() is not None)

    def _index_target(self) -> Tensor | None:
        """The step's target if it says something about classes; None for other numbers."""
        target = self.batch.tensors.get("target")
        if target is None or target.ndim > 1:
            return target
        return None if target.is_floating_point() or not self.class_target else target

    def _torch_sum(self, term: Term) -> Tensor | None:
        """The sum over rows by torch's own kernel, where that is all that the term is.

        Equal to the last bit to ``F.cross_entropy`` in a plain step, and as fast.
        """
        batch, tensors = self.batch, self.batch.tensors
        target, logits = tensors.get("target"), tensors.get("logits")
        if (
            not term.torch_sums
            or self.reduction == "none"
            or batch.weight is not None
            or term.target_transform is not None
            or term.row_weighting is not None
            or target is None
            or logits is None
            or target.ndim != 1
            or target.is_floating_point()
            or any(tensors.get(n) is not None for n in ("temperature", "softcap", "logit_scale"))
            or getattr(term.loss, "row_divisors", lambda _: None)(target) is not None
            or resolve_kernel(self.kernel, batch.problem(target)) != "reference"
        ):
            return None
        if batch.valid is not None:
            logits = torch.where(batch.valid[:, None], logits, 0)
            target = torch.where(batch.valid, target, SKIPPED)
        total: Tensor = term.loss.sum_over_rows(logits, target, SKIPPED)  # type: ignore[operator]
        return total


def _positive(divisor: Tensor) -> Tensor:
    """At least something to divide by: nothing valid gives 0, connected to the graph."""
    if divisor.is_floating_point():
        return torch.where(divisor > 0, divisor, 1.0)
    return divisor.clamp(min=1)
