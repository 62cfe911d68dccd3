# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`two_pass` and `online` as Triton kernels, a program a row; see `two_pass` for the algorithms.

Both keep one running exponent or maximum per LANE adjacent classes (16 bytes), not per class, so
that the comparison is between algorithms and not between how well each is written.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..triton.common import LOG2E, START, launch
from ..triton.lean_tile import checked
from ..triton.row_ops import block_size
from .softmax_passes import LN2_HIGH as _LN2_HIGH
from .softmax_passes import LN2_LOW as _LN2_LOW

# mypy: disable-error-code="no-untyped-def,no-untyped-call"

LN2_HIGH: tl.constexpr = tl.constexpr(_LN2_HIGH)
LN2_LOW: tl.constexpr = tl.constexpr(_LN2_LOW)


@triton.jit
def _read(z_ptr, start, V, BLOCK: tl.constexpr, LANE: tl.constexpr, MASK: tl.constexpr):
    """(BLOCK / LANE, LANE) logits, -inf past the last class."""
    offs = start + tl.arange(0, BLOCK // LANE)[:, None] * LANE + tl.arange(0, LANE)[None, :]
    if MASK:
        return tl.load(z_ptr + offs, mask=offs < V, other=-float("inf")).to(tl.float32), offs
    else:
        return tl.load(z_ptr + offs).to(tl.float32), offs


@triton.jit
def _write(out_ptr, offs, p, V, MASK: tl.constexpr):
    if MASK:
        tl.store(out_ptr + offs, p.to(out_ptr.dtype.element_ty), mask=offs < V)
    else:
        tl.store(out_ptr + offs, p.to(out_ptr.dtype.element_ty))


@triton.jit
def _pairs(z):
    """(m, n) with ``exp z = m 2^n``; m = 0 at -inf, NaN at +inf and NaN."""
    n = tl.floor(z * LOG2E + 0.5)
    t = tl.fma(n, -LN2_LOW, tl.fma(n, -LN2_HIGH, z))
    return tl.where(z == -float("inf"), 0.0, tl.exp2(t * LOG2E)), n


@triton.jit
def _add_pairs(
    m, n, z_ptr, start, V, BLOCK: tl.constexpr, LANE: tl.constexpr, MASK: tl.constexpr
):  # fmt: skip
    z, _ = _read(z_ptr, start, V, BLOCK, LANE, MASK)
    m1, n1 = _pairs(z)
    new = tl.maximum(n, tl.max(n1, axis=1))
    m = m * tl.exp2(n - new) + tl.sum(m1 * tl.exp2(n1 - new[:, None]), axis=1)
    return m, new


@triton.jit
def two_pass_rows(
    z_ptr, z_stride, out_ptr, out_stride, V, BLOCK: tl.constexpr, LANE: tl.constexpr
):  # fmt: skip
    """Softmax of row ``program_id(0)`` by pairs of mantissa and exponent."""
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * z_stride
    out_ptr += row * out_stride
    m = tl.zeros((BLOCK // LANE,), tl.float32)
    n = tl.full((BLOCK // LANE,), START, tl.float32)
    whole = (V // BLOCK) * BLOCK
    for start in range(0, whole, BLOCK):
        m, n = _add_pairs(m, n, z_ptr, start, V, BLOCK, LANE, False)
    for start in range(whole, V, BLOCK):  # the ragged end, at most once
        m, n = _add_pairs(m, n, z_ptr, start, V, BLOCK, LANE, True)
    top = tl.max(n, axis=0)
    total = tl.sum(m * tl.exp2(n - top), axis=0)
    inverse = tl.where(total == 0, 0.0, 1.0 / total)
    for start in range(0, whole, BLOCK):
        z, offs = _read(z_ptr, start, V, BLOCK, LANE, False)
        m1, n1 = _pairs(z)
        _write(out_ptr, offs, m1 * inverse * tl.exp2(n1 - top), V, False)
    for start in range(whole, V, BLOCK):
        z, offs = _read(z_ptr, start, V, BLOCK, LANE, True)
        m1, n1 = _pairs(z)
        _write(out_ptr, offs, m1 * inverse * tl.exp2(n1 - top), V, True)


@triton.jit
def _add_online(
    top, s, z_ptr, start, V, BLOCK: tl.constexpr, LANE: tl.constexpr, MASK: tl.constexpr
):  # fmt: skip
    z, _ = _read(z_ptr, start, V, BLOCK, LANE, MASK)
    new = tl.maximum(top, tl.max(z, axis=1))
    # Subtract, then multiply: large logits times log2 e would round first.
    e = tl.exp2((z - new[:, None]) * LOG2E)
    return new, s * tl.exp2((top - new) * LOG2E) + tl.sum(e, axis=1)


@triton.jit
def online_rows(
    z_ptr, z_stride, out_ptr, out_stride, V, BLOCK: tl.constexpr, LANE: tl.constexpr
):  # fmt: skip
    """Softmax of row ``program_id(0)`` by a running maximum."""
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * z_stride
    out_ptr += row * out_stride
    top = tl.full((BLOCK // LANE,), START, tl.float32)
    s = tl.zeros((BLOCK // LANE,), tl.float32)
    whole = (V // BLOCK) * BLOCK
    for start in range(0, whole, BLOCK):
        top, s = _add_online(top, s, z_ptr, start, V, BLOCK, LANE, False)
    for start in range(whole, V, BLOCK):
        top, s = _add_online(top, s, z_ptr, start, V, BLOCK, LANE, True)
    peak = tl.max(top, axis=0)
    total = tl.sum(s * tl.exp2((top - peak) * LOG2E), axis=0)
    inverse = tl.where(total == 0, 0.0, 1.0 / total)
    for start in range(0, whole, BLOCK):
        z, offs = _read(z_ptr, start, V, BLOCK, LANE, False)
        _write(out_ptr, offs, tl.exp2((z - peak) * LOG2E) * inverse, V, False)
    for start in range(whole, V, BLOCK):
        z, offs = _read(z_ptr, start, V, BLOCK, LANE, True)
        _write(out_ptr, offs, tl.exp2((z - peak) * LOG2E) * inverse, V, True)


def two_pass(z: Tensor) -> Tensor:
    """As `two_pass.two_pass`; float32 or half precision."""
    return _rows(two_pass_rows, z)


def online(z: Tensor) -> Tensor:
    """As `two_pass.online`; float32 or half precision."""
    return _rows(online_rows, z)


def _rows(kernel: Any, z: Tensor) -> Tensor:
    n, classes = z.shape
    z = checked(z)
    z = z if z.stride(1) == 1 else z.contiguous()
    out = torch.empty_like(z, memory_format=torch.contiguous_format)
    if z.numel() == 0:
        return out
    lane = max(1, 16 // z.element_size())
    block, warps = block_size(classes, lane)
    launch(
        kernel,
        (n,),
        z.device,
        z_ptr=z,
        z_stride=z.stride(0),
        out_ptr=out,
        out_stride=out.stride(0),
        V=classes,
        BLOCK=block,
        LANE=lane,
        num_warps=warps,
    )
    return out
