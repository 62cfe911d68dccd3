# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax statistics: what one pass over the classes tells every loss, monitor and controller.

The one front door to the kernels, and the only file that imports them.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, fields, replace

import torch
from torch import Tensor

from lightning_losses.kernels import reference, vocab_parallel
from lightning_losses.kernels import row_fused as _row_fused
from lightning_losses.kernels import spread as _spread
from lightning_losses.kernels.choose import unavailable
from lightning_losses.kernels.class_range import ClassRange
from lightning_losses.kernels.compact import compact, restore
from lightning_losses.kernels.problem import LOWEST, STATISTICS, Problem
from lightning_losses.kernels.resolve import (
    KERNELS,
    SMALL,
    TWO_PASSES,
    describe_kernel,
    kernel_module,
    resolve_kernel,
)
from lightning_losses.kernels.row_fused import RowFunction
from lightning_losses.kernels.spread import Direction, Spread
from lightning_losses.softmax_arguments import (
    check,
    in_autocast_dtype,
    nothing_left,
    require_classes,
    shift_left,
)

__all__ = [
    "KERNELS",
    "SMALL",
    "STATISTICS",
    "TWO_PASSES",
    "ClassRange",
    "Direction",
    "Problem",
    "RowFunction",
    "SoftmaxStats",
    "Spread",
    "describe_kernel",
    "in_autocast_dtype",
    "logit_spread",
    "resolve_kernel",
    "shift_left",
    "softmax_stats",
    "unavailable",
]


@dataclass(frozen=True)
class SoftmaxStats:
    """Per-row statistics of ``softmax(z)``; None where not asked for.

    Rows whose target is ignored hold 0 and send no gradient. float32 at least.
    """

    log_prob: Tensor | None = None
    """log p of the target in nats; ``sum_j t_j log p_j`` for soft targets t."""
    logsumexp: Tensor | None = None
    """log sum_j exp z_j."""
    entropy: Tensor | None = None
    """-sum_j p_j log p_j in nats, between 0 and log V."""
    mean_logit: Tensor | None = None
    """mean_j z_j."""
    collision: Tensor | None = None
    """sum_j p_j^2, a fraction between 1/V and 1."""
    confidence: Tensor | None = None
    """max_j p_j, a fraction between 1/V and 1."""
    prediction: Tensor | None = None
    """argmax_j z_j, int64, the lowest index among ties; no gradient."""
    valid: Tensor | None = None
    """bool; None if every row counts."""

    def as_dict(self) -> dict[str, Tensor]:
        """The statistics that are there, by name."""
        pairs = ((field.name, getattr(self, field.name)) for field in fields(self))
        return {name: value for name, value in pairs if value is not None}

    def detach(self) -> SoftmaxStats:
        """The same numbers without graph."""
        return replace(self, **{name: value.detach() for name, value in self.as_dict().items()})


def softmax_stats(
    logits: Tensor | None = None,
    *,
    hidden: Tensor | None = None,
    head_weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    target: Tensor | None = None,
    ignore_index: int = -100,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    temperature: Tensor | None = None,
    shift: int = 0,
    class_range: ClassRange | None = None,
    max_valid: int | None = None,
    want: Collection[str] | None = None,
    kernel: str = "auto",
) -> SoftmaxStats:
    """Statistics of the softmax over classes, from logits or from hidden states and a head.

    The logits are ``softcap * tanh((hidden @ head_weight.T + head_bias) * logit_scale / softcap)
    / temperature``; from hidden states they are never held whole (but by ``reference``).

    Args:
        logits: ``(..., V)``, any float dtype; or give ``hidden`` and ``head_weight``.
        hidden: ``(..., D)``.
        head_weight: ``(V, D)``; a tied or transposed view will do.
        head_bias: ``(V,)``.
        target: ``(...)`` int64 class indices, or ``(..., V)`` soft targets.
        ignore_index: rows with this target hold 0 in every statistic and send no gradient.
        softcap: tanh soft-cap in logits, as in Gemma 2 (arXiv 2408.00118).
        logit_scale: multiplies the logits before the soft-cap.
        temperature: ``(...)`` positive, one a row; divides the logits last.
        shift: position t is scored against ``target[..., t + shift]``; nothing is copied. The last
            ``shift`` positions have no target, and the result is that much shorter.
        class_range: vocabulary parallelism: the head (or logits) holds these classes out of more,
            ``ClassRange.across(V_r, group)``. Targets count over all classes; rows, targets and
            arguments are the same on every rank of the group, and every statistic comes out for
            all classes on each. The hidden states' gradient is summed over ranks, once: it is the
            whole one on each.
        max_valid: a promise that no more rows than this have a target: from ``hidden`` on a GPU the
            others then cost nothing, and the device is asked nothing. Count where the batch is
            made, ``int((target != ignore_index).sum())``. On a CPU they never cost anything.
        want: names out of ``STATISTICS``; all (that the arguments allow) if None.
        kernel: one of ``KERNELS``; the numbers are the same.

    Returns:
        SoftmaxStats with statistics of shape ``(...)``, float32 or float64. All but ``prediction``
        are differentiable, twice (once with class_range), in logits, hidden, head_weight and
        head_bias.

    Raises:
        ValueError: about shapes, dtypes, unknown names, or arguments that exclude each other.
        NotImplementedError: for forward-mode differentiation of ``chunked``; use ``reference``.
    """
    if want is None:
        want = [name for name in STATISTICS if name != "log_prob" or target is not None]
    source = logits if logits is not None else hidden
    if source is None or (logits is not None) == (hidden is not None):
        raise ValueError(
            "softmax_stats needs either logits (..., V), or hidden (..., D) with head_weight "
            f"(V, D); it got {'both' if source is not None else 'neither'}."
        )
    lead = source.shape[:-1]
    classes = target is not None and not target.is_floating_point()
    soft = target is not None and not classes and target.ndim == source.ndim
    if shift and not (lead and 0 < shift < lead[-1]):
        raise nothing_left(shift, tuple(lead))
    if target is not None and shift:
        if soft:
            raise ValueError(
                f"shift={shift} goes with class indices, got soft targets {tuple(target.shape)}: "
                "align them with the logits and leave shift out."
            )
        target = shift_left(target, shift, ignore_index)
    valid = (target != ignore_index).reshape(-1) if target is not None and classes else None
    problem = make_problem(
        logits=None if logits is None else logits.reshape(-1, logits.shape[-1]),
        hidden=None if hidden is None else hidden.reshape(-1, hidden.shape[-1]),
        head_weight=head_weight,
        head_bias=head_bias,
        target=None
        if target is None
        else (target.reshape(-1, target.shape[-1]) if soft else target.reshape(-1)),
        valid=valid,
        temperature=None if temperature is None else temperature.reshape(-1),
        softcap=softcap,
        logit_scale=logit_scale,
        class_range=class_range,
        max_valid=max_valid,
    )
    out = statistics(problem, tuple(want), kernel)
    if valid is not None:
        out["valid"] = valid
    out = {name: value.reshape(lead) for name, value in out.items()}
    if shift:
        out = {name: value[..., :-shift] for name, value in out.items()}
    return SoftmaxStats(**out)


def make_problem(
    *,
    logits: Tensor | None = None,
    hidden: Tensor | None = None,
    head_weight: Tensor | None = None,
    head_bias: Tensor | None = None,
    target: Tensor | None = None,
    valid: Tensor | None = None,
    temperature: Tensor | None = None,
    softcap: float | None = None,
    logit_scale: float = 1.0,
    class_range: ClassRange | None = None,
    max_valid: int | None = None,
) -> Problem:
    """Check flattened arguments and make rows that do not count harmless (see `Problem`)."""
    check(logits, hidden, head_weight, head_bias, target, temperature, softcap, logit_scale)
    if max_valid is not None and max_valid < 0:
        raise ValueError(f"max_valid is a number of rows, got {max_valid}: leave it out.")
    if class_range is not None:
        rows = head_weight if logits is None else logits.t()
        assert rows is not None
        class_range.check(len(rows), target)
    hidden = None if hidden is None else in_autocast_dtype(hidden)
    if valid is not None and valid.device.type == "cpu" and not torch.compiler.is_compiling():
        valid = None if bool(valid.all()) else valid  # free on a CPU, a stall anywhere else
    if valid is not None:
        if target is not None:
            target = torch.where(valid if target.ndim == 1 else valid[:, None], target, 0)
        if temperature is not None:
            temperature = torch.where(valid, temperature, 1)
    options = softcap, logit_scale, class_range, max_valid
    return Problem(logits, hidden, head_weight, head_bias, target, valid, temperature, *options)


def statistics(problem: Problem, want: tuple[str, ...], kernel: str = "auto") -> dict[str, Tensor]:
    """The wanted statistics ``(N,)`` with graph, by the named kernel."""
    unknown = [name for name in want if name not in STATISTICS]
    if unknown:
        raise ValueError(f"Unknown statistics {unknown}; there are {', '.join(STATISTICS)}.")
    if "log_prob" in want and problem.target is None:
        raise ValueError("log_prob was asked for, but no target was given: pass target=....")
    if not want:
        return {}
    with torch.autocast(problem.source.device.type, enabled=False):
        if problem.class_range is not None:
            found = vocab_parallel.statistics(problem, want, resolve_kernel(kernel, problem))
            return finish(found, problem.valid)
        require_classes(problem.target, problem.classes)
        module = kernel_module(kernel, problem)
        counted, rows = (problem, None) if module is reference else compact(problem)
        found = finish(module.statistics(counted, want), counted.valid)
        return {name: restore(x, rows, problem.source.shape[0]) for name, x in found.items()}


def row_fused(
    problem: Problem,
    want: tuple[str, ...],
    row_function: RowFunction,
    rows: dict[str, Tensor],
    kernel: str = "auto",
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Value and gradient of a sum of row values in one pass; see `kernels.row_fused`."""
    assert problem.class_range is None, "the objective takes two passes there"
    triton = resolve_kernel(kernel, problem) == "triton"
    module = kernel_module(kernel, problem) if triton else _row_fused

    def finished(stats: dict[str, Tensor], rows: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
        return row_function(finish(stats, None), rows)

    with torch.autocast(problem.source.device.type, enabled=False):
        require_classes(problem.target, problem.classes)
        counted, kept = compact(problem)
        if kept is not None:
            rows = {name: row.index_select(0, kept) for name, row in rows.items()}
        total, stats, values = module.row_fused(counted, want, finished, rows)
    n = problem.source.shape[0]
    found = finish(stats, counted.valid)
    return total, {k: restore(x, kept, n) for k, x in found.items()}, restore(values, kept, n)


def logit_spread(problem: Problem, direction: Direction, kernel: str = "auto") -> Spread:
    """How far the logits of each row change along a direction; see `kernels.spread`. No graph."""
    if problem.class_range is not None:
        raise ValueError(
            "The spread is over all classes and this rank holds some: take it on each rank of a "
            "problem without class_range, then the largest high and the smallest low of the ranks."
        )
    if resolve_kernel(kernel, problem) != "triton":
        return _spread.spread(problem, direction)
    from lightning_losses.kernels import triton_spread

    return triton_spread.spread(problem, direction)


def finish(stats: dict[str, Tensor], valid: Tensor | None) -> dict[str, Tensor]:
    """Give back -inf where a masked class made it, and 0 to rows that do not count."""
    stats = dict(stats)
    for name in ("log_prob", "logsumexp", "mean_logit"):
        if name in stats:
            # No honest float logit is near it, and the mean over 1e9 classes still passes it.
            value = stats[name]
            stats[name] = torch.where(value < LOWEST * 1e-10, -torch.inf, value)
    if valid is not None:
        stats = {name: torch.where(valid, value, 0) for name, value in stats.items()}
    return stats
