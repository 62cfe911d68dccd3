# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Value and gradient of a scalar made of row values, in one pass over the classes.

Two passes cost four matrix products (the logits are made twice); knowing the whole objective when
the forward runs costs three. The caller hands over a *row function* of the statistics; for each
chunk it is evaluated under autograd on `(n,)` leaves, its gradients become the coefficients of
`row_math`, and the chunk's logits are overwritten by their gradient before the next chunk is made.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ..problem import Problem
from ..row_math import coefficients, target_mass
from .chunked import Passes, chunks
from .gradients import Gradients, transformed
from .inplace_passes import torch_passes

#: (statistics, row data) of n rows -> (scalar, raw row values (terms, n) without graph)
RowFunction = Callable[[dict[str, Tensor], dict[str, Tensor]], tuple[Tensor, Tensor]]


def row_fused(
    problem: Problem,
    want: tuple[str, ...],
    row_function: RowFunction,
    rows: dict[str, Tensor],
    passes: Passes | None = None,
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """The sum of `row_function` over all rows, with graph to hidden, head weight and bias.

    Args:
        problem: what makes the logits; `valid` rows only should count in the row function.
        want: statistics `row_function` reads or the caller wants back.
        row_function: see `RowFunction`; must be a sum over rows, so that chunks add up.
        rows: per-row data that it reads, first dimension N, without graph.
        passes: what is done to a chunk: plain torch if None, or `triton/fast_keep.py`.

    Returns:
        The scalar; the wanted statistics ``(N,)`` without graph; the raw values ``(terms, N)``.

    Raises:
        RuntimeError: at a second derivative: the gradient is formed in the forward pass.
    """
    differentiate = tuple(
        torch.is_grad_enabled() and tensor is not None and tensor.requires_grad
        for tensor in problem.sources()
    )
    total, values, *stats = _RowFused.apply(  # type: ignore[no-untyped-call]
        *problem.sources(), problem, want, row_function, rows, differentiate, passes
    )
    return total, dict(zip(want, stats, strict=True)), values


class _RowFused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        logits: Tensor | None,
        hidden: Tensor | None,
        head_weight: Tensor | None,
        head_bias: Tensor | None,
        problem: Problem,
        want: tuple[str, ...],
        row_function: RowFunction,
        rows: dict[str, Tensor],
        differentiate: tuple[bool, ...],
        passes: Passes | None,
    ) -> tuple[Tensor, ...]:
        problem = problem._replace(
            logits=logits, hidden=hidden, head_weight=head_weight, head_bias=head_bias
        )
        names = frozenset(want)
        if "confidence" in names:
            names |= {"prediction"}
        passes = passes or torch_passes(problem)
        into = Gradients(problem, differentiate)
        totals: list[Tensor] = []
        values: list[Tensor] = []
        parts: list[dict[str, Tensor]] = []
        raw: Tensor | None = None
        start = 0
        size = passes.chunk_rows(problem)
        if differentiate[2]:
            size = rows_without_sum(problem, size)
        for chunk in chunks(problem, size):
            stop = start + chunk.source.shape[0]
            raw = passes.logits(chunk, raw)
            stats = passes.statistics(raw, chunk, names)
            total, value, grads = _differentiate(
                row_function,
                {name: stats[name] for name in want},
                {name: row[start:stop] for name, row in rows.items()},
            )
            if any(differentiate):
                mass, weight = target_mass(chunk.target), chunk.class_weight
                k = coefficients(grads, stats, mass, chunk.classes, weight)
                k = k.of_exponentials(stats["sum_exp"])
                into.add(chunk, passes.gradient(raw, chunk, stats, k, into.head_bias))
            totals.append(total)
            values.append(value)
            parts.append(stats)
            start = stop
        ctx.save_for_backward(*into.result(scaled=False))
        ctx.dtypes = [None if x is None else x.dtype for x in problem.sources()]
        stats_out = [torch.cat([part[name] for part in parts]) for name in want]
        value_out = torch.cat(values, dim=1)
        ctx.mark_non_differentiable(value_out, *stats_out)
        ctx.set_materialize_grads(False)
        return torch.stack(totals).sum(), value_out, *stats_out

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        if torch.is_grad_enabled():
            raise RuntimeError(
                "A second derivative was asked for, but this objective's gradient was formed in "
                "its forward pass (row_fused). Write kernel='reference', or call "
                "softmax_stats(...) and build the loss from its statistics."
            )
        grad = upstream[0]
        needs = len(ctx.needs_input_grad)
        if grad is None:
            return (None,) * needs
        # The head's gradient may be the largest tensor of all: a second one only if it must be.
        once = not (_graph_is_kept() or transformed(upstream))
        scale = Tensor.mul_ if once else torch.mul
        out = tuple(
            None if g is None else scale(g, grad.to(g.dtype)).to(dtype)
            for g, dtype in zip(ctx.saved_tensors, ctx.dtypes, strict=True)
        )
        return (*out, *(None,) * (needs - len(out)))


def rows_without_sum(problem: Problem, size: int) -> int:
    """Rows of a chunk where the head's gradient is wanted: all, if that takes no more memory.

    Over several chunks that gradient is summed in float32, ``4 V D`` bytes beside the one it is
    rounded to. The logits of all rows in half precision are fewer bytes for up to 2 D rows more
    than a chunk has, and then the products are whole and nothing is summed.
    """
    hidden, head = problem.hidden, problem.head_weight
    if hidden is None or head is None or problem.compute_dtype in (hidden.dtype, head.dtype):
        return size  # what is summed is the gradient itself
    n, depth = hidden.shape
    wide, narrow = problem.compute_dtype.itemsize, hidden.element_size()
    return n if n * narrow <= size * narrow + depth * wide else size


def _graph_is_kept() -> bool:
    """Whether this backward pass was started with ``retain_graph``; True if torch does not tell."""
    tell = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return tell is None or bool(tell())


def _differentiate(
    row_function: RowFunction, stats: dict[str, Tensor], rows: dict[str, Tensor]
) -> tuple[Tensor, Tensor, dict[str, Tensor | None]]:
    with torch.enable_grad():
        leaves = {
            name: value.detach().requires_grad_(value.is_floating_point())
            for name, value in stats.items()
        }
        total, values = row_function(leaves, rows)
        names = [name for name, leaf in leaves.items() if leaf.requires_grad]
        grads: tuple[Tensor | None, ...] = (None,) * len(names)
        if total.requires_grad:
            grads = torch.autograd.grad(total, [leaves[n] for n in names], allow_unused=True)
    return total.detach(), values.detach(), dict(zip(names, grads, strict=True))
