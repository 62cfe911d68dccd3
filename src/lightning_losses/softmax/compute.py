# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From checked arguments to a kernel and back; with `stats`, the only importers of the kernels."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.kernels import vocab_parallel
from lightning_losses.kernels.class_range import ClassRange
from lightning_losses.kernels.dispatch import find_kernel, resolve_kernel
from lightning_losses.kernels.eager import spread as _spread
from lightning_losses.kernels.eager.row_fused import RowFunction
from lightning_losses.kernels.eager.spread import Direction, Spread
from lightning_losses.kernels.problem import NO_CLASS_LEFT, STATISTICS, Problem
from lightning_losses.kernels.valid_rows import compact, restore, zero_ignored_rows
from lightning_losses.softmax.arguments import (
    check,
    check_class_weight,
    in_autocast_dtype,
    may_ask,
    require_classes,
)


def make_problem(
    *,
    logits: Tensor | None = None,
    hidden: Tensor | None = None,
    head_weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    target: Tensor | None = None,
    valid: Tensor | None = None,
    temperature: Tensor | None = None,
    class_weight: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    class_range: ClassRange | None = None,
    max_valid: int | None = None,
) -> Problem:
    """Check flattened arguments and make rows that do not count harmless (see `Problem`)."""
    check(logits, hidden, head_weight, head_bias, target, temperature, softcap, logit_scale)
    if max_valid is not None and (isinstance(max_valid, bool) or not isinstance(max_valid, int)):
        raise TypeError(
            f"max_valid is a number of rows, an int, got {max_valid!r}: write int(max_valid), or "
            "leave it out."
        )
    if max_valid is not None and max_valid < 0:
        raise ValueError(f"max_valid is a number of rows, got {max_valid}: leave it out.")
    if class_range is not None:
        rows = head_weight if logits is None else logits.t()
        assert rows is not None
        class_range.check(len(rows), target)
    hidden = None if hidden is None else in_autocast_dtype(hidden)
    if valid is not None and may_ask(valid):
        valid = None if bool(valid.all()) else valid  # free on a CPU, a stall anywhere else
    if target is not None:
        target = zero_ignored_rows(target, valid)
    if temperature is not None:
        temperature = zero_ignored_rows(temperature, valid, 1)
    sources = logits, hidden, head_weight, head_bias
    options = softcap, logit_scale, class_range, max_valid
    return Problem(*sources, target, valid, temperature, class_weight, *options)


def statistics(problem: Problem, want: tuple[str, ...], kernel: str = "auto") -> dict[str, Tensor]:
    """The wanted statistics ``(N,)`` with graph, by the named kernel."""
    unknown = [name for name in want if name not in STATISTICS]
    if unknown:
        raise ValueError(f"Unknown statistics {unknown}; there are {', '.join(STATISTICS)}.")
    if "log_prob" in want and problem.target is None:
        raise ValueError("log_prob was asked for, but no target was given: pass target=....")
    if "weighted_log_prob" in want:
        check_class_weight(problem.class_weight, problem.all_classes)
    if not want:
        return {}
    with torch.autocast(problem.source.device.type, enabled=False):
        if problem.class_range is not None:
            stats = vocab_parallel.statistics(problem, want, resolve_kernel(kernel, problem))
            return restore_neg_inf(stats, problem.valid)
        require_classes(problem.target, problem.classes)
        whole = resolve_kernel(kernel, problem) == "reference"
        counted, rows = (problem, None) if whole else compact(problem)
        stats = find_kernel(kernel, problem).statistics(counted, want)
        stats = restore_neg_inf(stats, counted.valid)
        return {name: restore(x, rows, problem.source.shape[0]) for name, x in stats.items()}


def row_fused(
    problem: Problem,
    want: tuple[str, ...],
    row_function: RowFunction,
    rows: dict[str, Tensor],
    kernel: str = "auto",
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Value and gradient of a sum of row values in one pass; see `kernels.row_fused`."""
    assert problem.class_range is None, "the objective takes two passes there"
    if "weighted_log_prob" in want:
        check_class_weight(problem.class_weight, problem.all_classes)

    def of_statistics(stats: dict[str, Tensor], rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return row_function(restore_neg_inf(stats, None), rows)

    with torch.autocast(problem.source.device.type, enabled=False):
        require_classes(problem.target, problem.classes)
        counted, kept = compact(problem)
        if kept is not None:
            rows = {name: row.index_select(0, kept) for name, row in rows.items()}
        one_pass = find_kernel(kernel, problem).row_fused
        total, stats, values = one_pass(counted, want, of_statistics, rows)
    n = problem.source.shape[0]
    stats = restore_neg_inf(stats, counted.valid)
    return total, {k: restore(x, kept, n) for k, x in stats.items()}, restore(values, kept, n)


def logit_spread(problem: Problem, direction: Direction, kernel: str = "auto") -> Spread:
    """How far the logits of each row change along a direction; see `kernels.spread`. No graph."""
    if problem.class_range is not None:
        raise ValueError(
            "The spread is over all classes and this rank holds some: take it on each rank of a "
            "problem without class_range, then the largest high and the smallest low of the ranks."
        )
    if resolve_kernel(kernel, problem) != "triton":
        return _spread.spread(problem, direction)
    from lightning_losses.kernels.triton import spread as triton_spread

    return triton_spread.spread(problem, direction)


def restore_neg_inf(stats: dict[str, Tensor], valid: Tensor | None) -> dict[str, Tensor]:
    """Give back -inf where a masked class made it, and 0 to rows that do not count."""
    stats = dict(stats)
    for name in ("log_prob", "logsumexp", "mean_logit", "mean_log_prob", "weighted_log_prob"):
        if name in stats:
            value = stats[name]
            stats[name] = torch.where(value < NO_CLASS_LEFT, -torch.inf, value)
    if valid is not None:
        stats = {name: torch.where(valid, value, 0) for name, value in stats.items()}
    return stats
