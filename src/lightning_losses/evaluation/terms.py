# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A plan computed: statistics, values per row, masked reduction, weighted sum, record.

`ignore_index`, `mask` and `sample_weight` are applied here, once, and never in a loss.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, world_size
from lightning_losses.evaluation.plan import Plan, Shared, with_class_weight
from lightning_losses.evaluation.rows import weighted_rows
from lightning_losses.evaluation.validation import refuse_soft_target
from lightning_losses.record import LossRecord
from lightning_losses.softmax import (
    STATISTICS,
    SoftmaxStats,
    row_fused,
    statistics,
    zero_ignored_rows,
)
from lightning_losses.term import Term

REDUCTIONS = ("mean", "sum", "none")

#: Marks rows that do not count for torch's own kernel. Not -100: where the objective's ignore_index
#: is another, a target of -100 is a mistake that torch would skip in silence.
SKIPPED = torch.iinfo(torch.int64).min


def evaluate(plan: Plan, normalizer: float | Tensor | None) -> LossRecord:
    """Values and record of one call; see `Objective.forward` for ``normalizer``.

    On several ranks the record has the global values on each.
    """
    return Evaluation(plan, normalizer).record()


def evaluate_apart(plan: Plan, normalizer: float | Tensor | None) -> dict[str, Tensor]:
    """The weighted value of each term with its own graph, of a plan with ``apart=True``."""
    return Evaluation(plan, normalizer).parts


class Evaluation:
    """The sums of one call, made in the order of the plan."""

    def __init__(self, plan: Plan, normalizer: float | Tensor | None) -> None:
        self.plan, self.rows = plan, plan.rows
        self.world = world_size()
        # One that the caller knows beforehand: `sum` and `normalizer` go before a term's own.
        self.fixed = plan.reduction == "sum" or normalizer is not None
        self.divisor = self._divisor(normalizer)
        self.parts: dict[str, Tensor] = {}  # weighted terms, with graph; those of one pass as one
        self.raw: dict[str, Tensor] = {}  # raw terms, without
        self.stats: dict[str, Tensor] = {}  # without graph, for the record
        if plan.one_pass:
            self._add_one_pass(plan.one_pass)
        for name, term in plan.torch_sum.items():
            self._add_part(name, term, self._torch_sum(term) / self.divisor)
        self._add_shared(plan.shared)
        if plan.unseen and plan.problem is not None:
            with torch.no_grad():
                self.stats |= statistics(plan.problem, plan.unseen, plan.kernel)

    def record(self) -> LossRecord:
        """What this evaluation leaves behind for logs and monitors."""
        plan, raw = self.plan, self.raw
        total, *others = self.parts.values()
        for part in others:
            total = total + part
        if self.world > 1 and total.ndim == 0:
            local = torch.stack([total.detach(), *raw.values()])
            value, *rest = all_sum(local) / self.world
            raw = dict(zip(raw, rest, strict=True))
            total = total + (value - total).detach()  # the global value, this rank's gradient
        captured = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in self.rows.tensors.items()
            if name in plan.watched and name not in STATISTICS
        }
        if "target" in captured and not plan.class_target:
            captured["target"] = captured["target"].float()  # a number, which names no class
        stats = SoftmaxStats(
            **{name: value.detach() for name, value in self.stats.items()}, valid=self.rows.valid
        )
        return LossRecord(
            total=total,
            terms=raw,
            weights={name: term.weight for name, term in plan.terms.items()},
            num_valid=self.rows.num_valid,
            num_rows=self.rows.num_rows,
            stats=stats,
            captured=captured,
        )

    # -- the ways to a value -----------------------------------------------------------------------

    def _add_one_pass(self, terms: Mapping[str, Term]) -> None:
        """Row functions of the statistics, values and gradients in one pass."""
        rows, tensors = self.rows, self.rows.tensors
        names = {a.tensor for t in terms.values() for a in t.arguments} | {"target"}
        data = {n: tensors[n] for n in names - set(STATISTICS) if n in tensors}
        for name, value in (("valid", rows.valid), ("sample_weight", rows.weight)):
            if value is not None:
                data[name] = value
        divisors = {n: self._term_divisor(term, tensors) for n, term in terms.items()}

        def row_function(
            stats: dict[str, Tensor], data: dict[str, Tensor]
        ) -> tuple[Tensor, Tensor]:
            values = {
                name: weighted_rows(
                    term(data | stats), data.get("valid"), data.get("sample_weight")
                )
                for name, term in terms.items()
            }
            # In this order: weight / count alone would round to float32 under float64 values.
            parts = [
                v.sum() * self.world / divisors[n] * terms[n].weight for n, v in values.items()
            ]
            return torch.stack(parts).sum(), torch.stack(list(values.values())).detach()

        for name, term in terms.items():
            refuse_soft_target(name, term, tensors)
        plan = self.plan
        assert plan.problem is not None
        total, stats, values = row_fused(
            plan.problem, plan.one_pass_want, row_function, data, plan.kernel
        )
        self.stats |= stats
        self.parts["+".join(terms)] = total
        for name, value in zip(terms, values, strict=True):
            self.raw[name] = value.sum() * self.world / divisors[name]

    def _torch_sum(self, term: Term) -> Tensor:
        """The sum over rows by torch's own kernel."""
        valid = self.rows.valid
        logits = zero_ignored_rows(self.rows.tensors["logits"], valid)
        target = zero_ignored_rows(self.rows.tensors["target"], valid, SKIPPED)
        total: Tensor = term.loss.sum_over_rows(logits, target, SKIPPED)  # type: ignore[operator]
        return total

    def _add_shared(self, shared: tuple[Shared, ...]) -> None:
        """Terms one by one, in their own order, on statistics that they share."""
        tensors: dict[str, Any] = {}  # what each term reads
        for transform, class_weight, terms, want in shared:
            own, problem = dict(self.rows.tensors), self.plan.problem
            if transform is not None:
                own["target"] = transform(own["target"])
                problem = self.rows.problem(own["target"]) if want else None
            if want:
                assert problem is not None
                problem = with_class_weight(problem, class_weight)
                stats = statistics(problem, want, self.plan.kernel)
                own |= stats
                # log p of a transformed target is not what a monitor means by log_prob.
                seen = {n: v for n, v in stats.items() if not transform or n != "log_prob"}
                self.stats = seen | self.stats
            tensors |= dict.fromkeys(terms, own)
        for name, term in self.plan.terms.items():
            if name in tensors:
                self._add_term(name, term, tensors[name])

    def _add_term(self, name: str, term: Term, tensors: Mapping[str, Any]) -> None:
        rows = self.rows
        refuse_soft_target(name, term, tensors)
        values = term(tensors)
        if values.ndim == 0:
            if self.plan.reduction == "none" or term.row_weighting is not None:
                raise ValueError(
                    f"Term {name!r} ({type(term.loss).__name__}) is one number for the batch, so "
                    "it has no values per row: write reduction='mean' and no row_weighting."
                )
            self._add_part(name, term, values, scale=1)
            return
        if values.shape != (rows.num_rows,):
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) must return ({rows.num_rows},) or a "
                f"scalar, got {tuple(values.shape)}: reduce it to one value a row."
            )
        if term.row_weighting is not None:
            values = values * term.row_weights(values, rows.valid, tensors)
        values = weighted_rows(values, rows.valid, rows.weight)
        if self.plan.reduction == "none":
            self.parts[name] = values * term.weight
            self.raw[name] = values.detach().sum() / self.divisor
        else:
            self._add_part(name, term, values.sum() / self._term_divisor(term, tensors))

    def _add_part(self, name: str, term: Term, value: Tensor, scale: int | None = None) -> None:
        """A term's share of the total; sums over rows count ``world`` times, see distributed."""
        scale = self.world if scale is None else scale
        value = value * scale if scale != 1 else value
        self.raw[name] = value.detach()
        self.parts[name] = value * term.weight

    # -- divisors ----------------------------------------------------------------------------------

    def _divisor(self, normalizer: float | Tensor | None) -> Tensor:
        rows = self.rows
        if self.plan.reduction == "sum":
            return torch.ones((), device=rows.device)
        if normalizer is not None:
            if not isinstance(normalizer, Tensor):
                if not normalizer >= 0:
                    raise ValueError(
                        f"normalizer divides the sum over rows and must be at least 0, got "
                        f"{normalizer}."
                    )
                normalizer = torch.full((), normalizer, device=rows.device)  # no copy that waits
            return _positive(normalizer.to(rows.device))
        own = rows.num_valid if rows.weight is None else rows.weight.sum()
        return _positive(all_sum(own))

    def _term_divisor(self, term: Term, tensors: Mapping[str, Any]) -> Tensor:
        """Most terms divide by the rows that count; some (class weights) by a sum of their own."""
        own = getattr(term.loss, "row_divisors", None)
        per_row = None if own is None or self.fixed else own(tensors.get("target"))
        if per_row is None:
            return self.divisor
        return _positive(all_sum(weighted_rows(per_row, self.rows.valid, self.rows.weight).sum()))


def _positive(divisor: Tensor) -> Tensor:
    """At least something to divide by: nothing valid gives 0, connected to the graph."""
    if divisor.is_floating_point():
        return torch.where(divisor > 0, divisor, 1.0)
    return divisor.clamp(min=1)
