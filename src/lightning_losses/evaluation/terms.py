# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A plan computed: statistics, values per row, masked reduction, weighted sum, record.

`ignore_index`, `mask` and `sample_weight` are applied here, once, and never in a loss.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from numbers import Real
from typing import Any

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, reduce_with_gradient, world_size
from lightning_losses.evaluation.chunks import chunks_of, made_by_chunks
from lightning_losses.evaluation.plan import Plan, Shared, with_class_weight
from lightning_losses.evaluation.rows import Rows, weighted_rows
from lightning_losses.evaluation.validation import refuse_transformed_target
from lightning_losses.evaluation.values import check_sample_weight
from lightning_losses.record import LossRecord
from lightning_losses.softmax import (
    STATISTICS,
    Chunks,
    SoftmaxStats,
    may_ask,
    row_fused,
    statistics,
    zero_ignored_rows,
)
from lightning_losses.term import Term, pick

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
        self.plan, self.rows, self.normalizer = plan, plan.rows, normalizer
        self.world = world_size()
        # One that the caller knows beforehand: `sum` and `normalizer` go before a term's own.
        self.fixed = plan.reduction == "sum" or normalizer is not None
        self.divisor = self._divisor(normalizer)
        self.parts: dict[str, Tensor] = {}  # weighted terms, with graph; those of one pass as one
        self.raw: dict[str, Tensor] = {}  # raw terms, without
        self.stats: dict[str, Tensor] = {}  # without graph, for the record
        self.of_batch: list[str] = []  # terms that are one number of the batch, no sum over rows
        self.own_divisors: dict[str, Tensor] = {}  # of terms that are one number for the batch
        self.noted: dict[str, tuple[Tensor, Tensor]] = {}  # diagnostics: sum over rows, and rows
        if plan.one_pass:
            self._add_one_pass(plan.one_pass)
        for name, term in plan.torch_sum.items():
            self._add_part(name, term, _divide(self._torch_sum(term), self.divisor))
        self._add_shared(plan.shared)
        self.stats |= {n: self.rows.tensors[n].detach() for n in plan.given}
        if plan.unseen and plan.problem is not None:
            with torch.no_grad():
                self.stats |= statistics(plan.problem, plan.unseen, plan.kernel)
        self._refuse_mixture()

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
        # A slice of the classes would pass for all of them.
        some = "class_range" in self.rows.tensors
        sliced = {"logits", "head_weight", "head_bias"} if some else set()
        captured = {
            name: value.detach() if isinstance(value, Tensor) else value
            for name, value in self.rows.tensors.items()
            if name in plan.watched and name not in STATISTICS and name not in sliced
        }
        if some and "class_range" in captured:  # who asks for it knows what slices are
            own = {name: self.rows.tensors.get(name) for name in sliced & plan.watched}
            captured["slices"] = {n: v.detach() for n, v in own.items() if isinstance(v, Tensor)}
        if "target" in captured and not plan.class_target:
            captured["target"] = captured["target"].float()  # a number, which names no class
        numerators, divisors = self._to_add_up(raw)
        told, counts = self._diagnostics()
        if divisors:
            numerators, divisors = numerators | told, divisors | counts
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
            numerators=numerators,
            divisors=divisors,
            diagnostics={name: told[name] / counts[name].clamp(min=1) for name in told},
            captured=captured,
            head=plan.head,
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
        noted: dict[str, Tensor] = {}

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
                _divide(v.sum() * self.world, divisors[n]) * terms[n].weight.to(v.dtype)
                for n, v in values.items()
            ]
            count = len(next(iter(values.values())))
            for name, term in terms.items():
                for key, value in collect_diagnostics(name, term, count).items():
                    total = zero_ignored_rows(value, data.get("valid")).sum()
                    noted[key] = noted[key] + total if key in noted else total
            return torch.stack(parts).sum(), torch.stack(list(values.values())).detach()

        plan = self.plan
        assert plan.problem is not None
        total, stats, values = row_fused(
            plan.problem, plan.one_pass_want, row_function, data, plan.kernel
        )
        self.stats |= stats
        self.parts["+".join(terms)] = total
        for name, value in zip(terms, values, strict=True):
            self.raw[name] = _divide(value.sum() * self.world, divisors[name])
        self.noted |= {name: (total, rows.num_valid) for name, total in noted.items()}

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
            if "class_range" in own:  # one that needs logits was refused, others do without
                own.pop("logits", None)
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
        if term.target_transform is not None:
            refuse_transformed_target(name, term, tensors.get("target"))
        by_chunks = made_by_chunks(term, tensors)
        values = _by_chunks(term, rows, tensors) if by_chunks else term(tensors)
        self._note(name, term)
        if values.ndim == 0:
            if self.plan.reduction == "none" or term.weighs_rows:
                raise ValueError(
                    f"Term {name!r} ({type(term.loss).__name__}) is one number for the batch, so "
                    "it has no values per row: write reduction='mean', no row_weighting and no "
                    "aggregation."
                )
            if getattr(term.loss, "scope", None) != "parameters":
                self.of_batch.append(name)
            self.own_divisors[name] = self._batch_divisor(term, tensors)
            self._add_part(name, term, values, scale=1)
            return
        if values.shape != (rows.num_rows,):
            raise ValueError(
                f"Term {name!r} ({type(term.loss).__name__}) must return ({rows.num_rows},) or a "
                f"scalar, got {tuple(values.shape)}: reduce it to one value a row."
            )
        if term.weighs_rows:
            values = values * term.row_weights(values, rows.valid, tensors)
        values = weighted_rows(values, rows.valid, rows.weight)
        if self.plan.reduction == "none":
            self.parts[name] = values * term.weight.to(values.dtype)
            self.raw[name] = _divide(values.detach().sum(), self.divisor).detach()
        else:
            self._add_part(name, term, _divide(values.sum(), self._term_divisor(term, tensors)))

    def _add_part(self, name: str, term: Term, value: Tensor, scale: int | None = None) -> None:
        """A term's share of the total; sums over rows count ``world`` times, see distributed."""
        scale = self.world if scale is None else scale
        value = value * scale if scale != 1 else value
        self.raw[name] = value.detach()
        self.parts[name] = value * term.weight.to(value.dtype)

    def _refuse_mixture(self) -> None:
        """A sum over rows grows with the batch, a mean of the batch does not: no weights hold.

        Nor does a weight of rows do anything where no term has any.
        """
        penalties = {
            name
            for name, term in self.plan.terms.items()
            if getattr(term.loss, "scope", None) == "parameters"
        }
        of_rows = [n for n in self.plan.terms if n not in self.of_batch and n not in penalties]
        if self.rows.weight is not None and self.of_batch and not of_rows:
            raise ValueError(
                f"sample_weight weighs rows, and {', '.join(self.of_batch)} is one number for the "
                "batch, which would be the same: leave it out, or write mask= (bool) for rows that "
                "do not count."
            )
        if self.plan.reduction == "sum" and self.of_batch and of_rows:
            raise ValueError(
                f"Under reduction='sum' {', '.join(of_rows)} would be a sum over rows beside "
                f"{', '.join(self.of_batch)}, one number for the batch, and their balance would "
                "change with the batch: write reduction='mean', or two objectives."
            )

    # -- diagnostics -------------------------------------------------------------------------------

    def _note(self, name: str, term: Term) -> None:
        """Add up over rows what a term has left in its ``diagnostics``."""
        rows = self.rows
        # A penalty on parameters has no rows; what it says is the same on every rank.
        rowless = getattr(term.loss, "scope", None) == "parameters"
        for key, value in collect_diagnostics(name, term, 1 if rowless else rows.num_rows).items():
            if rowless:
                self.noted[key] = value.sum(), torch.ones_like(rows.num_valid)
            else:
                self.noted[key] = zero_ignored_rows(value, rows.valid).sum(), rows.num_valid

    def _diagnostics(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Their sums and rows, of all ranks while gradients are enabled."""
        if not self.noted:
            return {}, {}
        names = tuple(self.noted)
        totals, counts = zip(*self.noted.values(), strict=True)
        summed = all_sum(torch.stack([*totals, *counts])).unbind()
        told = dict(zip(names, summed[: len(names)], strict=True))
        return told, dict(zip(names, summed[len(names) :], strict=True))

    # -- divisors ----------------------------------------------------------------------------------

    def _divisor(self, normalizer: float | Tensor | None) -> float | Tensor:
        rows = self.rows
        if rows.weight is not None:
            check_sample_weight(rows.weight, divides=not self.fixed)
        if self.plan.reduction == "sum":
            return 1.0
        if normalizer is not None:
            return known_divisor(normalizer, rows.device)
        if rows.weight is None:
            return _positive(all_sum(rows.num_valid))
        return _positive(_sum_of_all(rows.weight))

    def _term_divisor(self, term: Term, tensors: Mapping[str, Any]) -> float | Tensor:
        """Most terms divide by the rows that count; some (class weights) by a sum of their own."""
        own = getattr(term.loss, "row_divisors", None)
        per_row = None if own is None or self.fixed else own(tensors.get("target"))
        if per_row is None:
            return self.divisor
        return _positive(_sum_of_all(weighted_rows(per_row, self.rows.valid, self.rows.weight)))

    # -- what batches add up to ------------------------------------------------------------------

    def _to_add_up(self, raw: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Numerators and divisors of the terms, global as ``raw`` is; see `LossRecord`."""
        if torch.is_grad_enabled() and self.normalizer is None:
            return {}, {}
        counted = self._counted()
        numerators, divisors = {}, {}
        for name, value in raw.items():
            used: float | Tensor
            if name in self.own_divisors:  # a mean already, whatever the reduction
                divisor = used = self.own_divisors[name]
            elif self.plan.reduction == "sum":
                divisor, used = torch.zeros_like(value), 1
            else:
                own = self._own_divisor(self.plan.terms[name])
                divisor = counted if own is None else own
                used = self.divisor if self.fixed or self.plan.reduction == "none" else divisor
            numerators[name], divisors[name] = value * used, divisor
        return numerators, divisors

    def _counted(self) -> Tensor:
        """The rows that count, of all ranks, or the sum of their weights; 0 if there are none."""
        rows = self.rows
        return all_sum(rows.num_valid if rows.weight is None else rows.weight.sum())

    def _own_divisor(self, term: Term) -> Tensor | None:
        """What a term divides by instead of the rows that count; None for most."""
        own = getattr(term.loss, "row_divisors", None)
        per_row = None if own is None else own(self.rows.tensors.get("target"))
        if per_row is None or self.plan.reduction == "none":
            return None
        return all_sum(weighted_rows(per_row, self.rows.valid, self.rows.weight).sum())

    def _batch_divisor(self, term: Term, tensors: Mapping[str, Any]) -> Tensor:
        """What a term that is one number for the batch is the mean of; for epochs.

        ``loss.batch_divisor(**tensors)`` if it has one (pixels, images, bags, ...); 1 for a penalty
        on parameters, which is the same in every batch, and where no tensor has rows; else the rows
        that count.
        """
        rowless = not self.rows.num_rows and not any(
            isinstance(tensor, Tensor) and tensor.ndim for tensor in self.rows.tensors.values()
        )
        if rowless or getattr(term.loss, "scope", None) == "parameters":
            return torch.ones((), device=self.rows.device)
        own = getattr(term.loss, "batch_divisor", None)
        if own is None:
            return self._counted()
        with torch.no_grad():
            return all_sum(own(**pick(term.arguments, tensors)))


def _by_chunks(term: Term, rows: Rows, tensors: Mapping[str, Any]) -> Tensor:
    """What `term(tensors)` would be with logits, which are made a few rows at a time."""
    chunks = chunks_of(term, rows, tensors)
    of_chunks: Callable[[Chunks], Tensor] | None = getattr(term.loss, "of_chunks", None)
    return chunks.each(term.loss) if of_chunks is None else of_chunks(chunks)


def collect_diagnostics(name: str, term: Term, count: int) -> dict[str, Tensor]:
    """What a term's loss has left in its ``diagnostics`` by ``<term>/<name>``, ``(count,)`` each.

    Taken away from the loss: of a call that leaves none, none is told. One number holds for every
    row.

    Raises:
        ValueError: a value is neither one number nor one a row.
    """
    left = getattr(term.loss, "diagnostics", None)
    if not isinstance(left, dict) or not left:
        return {}
    found: dict[str, Tensor] = {}
    for key, value in left.items():
        if value.ndim and value.shape != (count,):
            raise ValueError(
                f"{type(term.loss).__name__} leaves {key!r} in its diagnostics as "
                f"{tuple(value.shape)}: write one number, or one a row, ({count},)."
            )
        # At least float32: a count of ones in half precision ends at 2048.
        value = value.detach().to(torch.promote_types(value.dtype, torch.float32))
        found[f"{name}/{key}"] = value.expand(count)
    term.loss.diagnostics = {}  # type: ignore[assignment]
    return found


def known_divisor(normalizer: float | Tensor, device: torch.device) -> float | Tensor:
    """A normalizer of the caller's as what sums are divided by; 0, of nothing, divides by 1.

    Raises:
        ValueError: it is no single number, or, where asking is free, negative, infinite or NaN.
            Elsewhere a negative one makes the loss NaN.
    """
    if not isinstance(normalizer, Tensor):
        if isinstance(normalizer, bool) or not isinstance(normalizer, Real):
            raise TypeError(f"normalizer must be a number or a tensor of one, got {normalizer!r}.")
        if not 0 <= normalizer < math.inf:
            raise ValueError(
                f"normalizer divides the sum over rows and must be at least 0, got {normalizer}."
            )
        return float(normalizer) or 1.0
    if normalizer.numel() != 1 or normalizer.dtype == torch.bool:
        raise ValueError(
            f"normalizer must be one number, got {normalizer.dtype} {tuple(normalizer.shape)}: "
            "write the number of rows that count, over all batches and ranks."
        )
    if normalizer.requires_grad:
        raise ValueError("normalizer gets no gradient here: write normalizer.detach().")
    if may_ask(normalizer):
        known_divisor(normalizer.item(), device)
    divisor = normalizer.to(device).reshape(())
    return torch.where(divisor >= 0, _positive(divisor), math.nan)


def _sum_of_all(per_row: Tensor) -> Tensor:
    """The sum over the rows of all ranks; with gradient where weights are learned."""
    total = per_row.sum()
    return reduce_with_gradient(total) if total.requires_grad else all_sum(total)


def _positive(divisor: Tensor) -> Tensor:
    """At least something to divide by: nothing valid gives 0, connected to the graph."""
    if divisor.is_floating_point():
        return torch.where(divisor == 0, 1.0, divisor)
    return divisor.clamp(min=1)


def _divide(value: Tensor, divisor: float | Tensor) -> Tensor:
    """A quotient in the dtype of the value, whatever the divisor's is."""
    if isinstance(divisor, Tensor) and divisor.is_floating_point():
        divisor = divisor.to(value.dtype)
    return value / divisor
