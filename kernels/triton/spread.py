# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`spread` on a GPU: three products a tile, in registers, merged like the statistics of mode lean.

The products follow each other through one pipeline instead of sharing loads: that halves the
shared memory, and a monitor on a cadence can afford to read the head again.
"""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..eager.spread import Direction, Part, Spread, check, merge, to_spread
from ..problem import Problem
from . import tiles
from .common import LOG2E, LOWEST, PAD, START, cap, flat, inverse, launch, lift, options
from .lean_tile import aligned, checked, precision, swizzle_pid, tile_logits
from .row_kernels import outer_slope

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@triton.jit
def span_spread(
    h_ptr, h_stride, h_step, dh_ptr, dh_stride, dh_step, w_ptr, w_stride, w_step,
    dw_ptr, dw_stride, dw_step, bias_ptr, dbias_ptr, temperature_ptr,
    high_ptr, low_ptr, top_ptr, s_ptr, mean_ptr, squares_ptr, N, V, D, span, spans, scale, softcap,
    BM: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, EVEN_D: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr,
):  # fmt: skip
    """A `Part` of each row and span of classes, ``(spans, N)``."""
    row_block, part = swizzle_pid(tl.program_id(0), tl.cdiv(N, BM), spans, GROUP)
    row0 = row_block * BM
    rows = row0 + tl.arange(0, BM)
    LIFT: tl.constexpr = bias_ptr is not None
    temperature = None
    if temperature_ptr is not None:
        temperature = tl.load(temperature_ptr + rows, mask=rows < N, other=1.0)[:, None]
    inv_temperature = inverse(temperature)
    slope = outer_slope(scale, temperature)
    high = tl.full((BM,), -float("inf"), tl.float32)
    low = tl.full((BM,), float("inf"), tl.float32)
    m = tl.full((BM,), START, tl.float32)
    s = tl.zeros((BM,), tl.float32)
    mean, squares = s, s
    for col0 in range(part * span, tl.minimum(part * span + span, V), BV):
        cols = col0 + tl.arange(0, BV)
        z = tile_logits(
            h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, row0, col0, N, V, D,
            BM, BV, BD, EVEN_D, PRECISION,
        )  # fmt: skip
        a = tl.zeros((BM, BV), tl.float32)
        if dh_ptr is not None:
            a = tile_logits(
                dh_ptr, dh_stride, dh_step, w_ptr, w_stride, w_step, row0, col0, N, V, D,
                BM, BV, BD, EVEN_D, PRECISION, a,
            )  # fmt: skip
        if dw_ptr is not None:
            a = tile_logits(
                h_ptr, h_stride, h_step, dw_ptr, dw_stride, dw_step, row0, col0, N, V, D,
                BM, BV, BD, EVEN_D, PRECISION, a,
            )  # fmt: skip
        if dbias_ptr is not None:
            a += tl.load(dbias_ptr + cols, mask=cols < V, other=0.0)[None, :]
        if bias_ptr is not None:
            z += tl.load(bias_ptr + cols, mask=cols < V, other=0.0)[None, :]
        z = cap(z, scale, softcap)
        if softcap is not None:
            tanh = z * (1.0 / softcap)
            a *= 1 - tanh * tanh
        if slope is not None:
            a *= slope
        if inv_temperature is not None:
            z *= inv_temperature
        z = lift(z, LIFT)
        # Against the complement, so that NaN counts.
        drop = (cols >= V)[None, :]
        if LIFT:
            drop = drop | (z == LOWEST)
        z = tl.where(drop, PAD, z)
        # A maximum would lose NaN.
        high = tl.maximum(high, tl.max(tl.where(drop, -float("inf"), _nan_as(a, float("inf"))), 1))
        low = tl.minimum(low, tl.min(tl.where(drop, float("inf"), _nan_as(a, -float("inf"))), 1))
        a = tl.where(drop, 0.0, a)
        new = tl.maximum(m, tl.max(z, axis=1))
        e = tl.exp2((z - new[:, None]) * LOG2E)
        r = tl.exp2((m - new) * LOG2E)
        here = tl.sum(e, axis=1)
        mean_here = tl.sum(e * a, axis=1) / tl.where(here == 0, 1.0, here)
        off = a - mean_here[:, None]
        before = s * r
        s = before + here
        share = here / tl.where(s == 0, 1.0, s)
        step = mean_here - mean
        squares = squares * r + tl.sum(e * off * off, axis=1) + step * step * (before * share)
        mean += step * share
        m = new
    out = tl.cast(part, tl.int64) * N + rows
    inside = rows < N
    tl.store(high_ptr + out, high, mask=inside)
    tl.store(low_ptr + out, low, mask=inside)
    tl.store(top_ptr + out, m, mask=inside)
    tl.store(s_ptr + out, s, mask=inside)
    tl.store(mean_ptr + out, mean, mask=inside)
    tl.store(squares_ptr + out, squares, mask=inside)


@triton.jit
def _nan_as(x, other):
    return tl.where(x != x, other, x)


def spread(problem: Problem, direction: Direction) -> Spread:
    """As `kernels.spread.spread`, in float32 from products in the dtype of the hidden states."""
    check(problem, direction)
    with torch.no_grad(), torch.autocast(problem.source.device.type, enabled=False):
        assert problem.hidden is not None
        if len(problem.hidden) == 0:
            return Spread(*(problem.hidden.new_zeros(0, dtype=torch.float32) for _ in range(4)))
        unit = _unit(problem.hidden, direction)
        part = merge([_spans(problem, direction, unit)])
        high, low, mean, variance = to_spread(part, problem.valid)
        return Spread(high / unit, low / unit, mean / unit, variance / unit / unit)


def _unit(hidden: Tensor, direction: Direction) -> Tensor:
    """What a direction is multiplied by, on the device: a step of 1e-8 is 0 in float16."""
    sizes = [x.detach().abs().amax().float() for x in direction if x is not None and x.numel()]
    if hidden.dtype != torch.float16 or not sizes:
        return torch.ones((), device=hidden.device)
    largest = torch.stack(sizes).amax()
    return torch.where((largest > 0) & largest.isfinite(), 1 / largest, 1.0)


def _spans(problem: Problem, direction: Direction, unit: Tensor) -> Part:
    assert problem.hidden is not None
    dtype = problem.hidden.dtype

    def moved(x: Tensor | None) -> Tensor | None:
        if x is None or dtype != torch.float16:  # the unit is 1, and a copy of the head is large
            return None if x is None else aligned(x.to(dtype))
        return aligned((x.float() * unit).to(dtype))

    hidden, head = aligned(checked(problem.hidden)), aligned(problem.head())
    operands = {"h": hidden, "w": head, "dh": moved(direction.hidden)}
    operands["dw"] = moved(direction.head_weight)
    dbias = None if direction.head_bias is None else direction.head_bias.float() * unit
    (n, depth), classes = hidden.shape, head.shape[0]
    tile = tiles.spread_tile(tiles.architecture(hidden.device), hidden.element_size())
    span = tiles.span_classes(n, classes, tile, hidden.device)
    spans = -(-classes // span)
    part = Part(*(hidden.new_empty((spans, n), dtype=torch.float32) for _ in Part._fields))
    arguments: dict[str, object] = {f"{name}_ptr": x for name, x in part._asdict().items()}
    for name, x in operands.items():
        arguments[f"{name}_ptr"] = x
        arguments[f"{name}_stride"] = 0 if x is None else x.stride(0)
        arguments[f"{name}_step"] = 1 if x is None else x.stride(1)
    launch(
        span_spread,
        (triton.cdiv(n, tile.rows) * spans,),
        hidden.device,
        **arguments,
        bias_ptr=flat(problem.head_bias),
        dbias_ptr=flat(dbias),
        temperature_ptr=flat(problem.temperature),
        N=n,
        V=classes,
        D=depth,
        span=span,
        spans=spans,
        **options(problem.logit_scale, problem.softcap),
        BM=tile.rows,
        BV=tile.classes,
        BD=tile.depth,
        EVEN_D=depth % tile.depth == 0,
        GROUP=tiles.GROUP,
        PRECISION=precision(hidden),
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    return part
