# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mode lean, backward: dlogits of a slab of classes, made from hidden and head again.

The slab ``(N, classes of a slab)`` then goes through two library matrix products, and the head's
gradient is written once, unrounded by any sum over chunks.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import final_logits, inverse
from .lean_tile import swizzle_pid, tile_logits
from .row_kernels import dlogits, outer_slope, per_cap

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@triton.jit
def column(ptr, rows, counts, OTHER: tl.constexpr):
    """One number a row as ``(BM, 1)``, OTHER where the row does not count; or None."""
    if ptr is None:
        return
    else:
        return tl.load(ptr + rows, mask=counts, other=OTHER)[:, None]


@triton.jit
def slab_gradient(
    h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, out_ptr, out_stride, bias_ptr,
    temperature_ptr, target_ptr, valid_ptr, num_valid_ptr, max_logit_ptr, prediction_ptr,
    a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, f_ptr, N, V, D, first, width, scale, softcap,
    BM: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, EVEN_D: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """dlogits of classes ``first .. first + width`` into ``out (N, width)``.

    The bias's gradient is not summed here: 384 shuffles a tile, and spills.
    """
    row_block, col_block = swizzle_pid(tl.program_id(0), tl.cdiv(N, BM), tl.cdiv(width, BV), GROUP)
    row0 = row_block * BM
    rows = row0 + tl.arange(0, BM)
    local = col_block * BV + tl.arange(0, BV)
    depth = D
    if num_valid_ptr is not None:  # rows past it do not count and cost nothing
        depth = tl.where(row0 < tl.load(num_valid_ptr), D, 0)
    z = tile_logits(
        h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, row0, first + col_block * BV,
        N, first + width, depth, BM, BV, BD, EVEN_D, PRECISION, None, USE_TMA,
    )  # fmt: skip
    if bias_ptr is not None:
        z += tl.load(bias_ptr + first + local, mask=local < width, other=0.0)[None, :]
    # Rows that do not count get coefficients of 0 and exp x = 0, which costs nothing an element.
    counts = rows < N
    if valid_ptr is not None:
        counts &= tl.load(valid_ptr + rows, mask=counts, other=0) != 0
    temperature = column(temperature_ptr, rows, counts, 1)
    slope = outer_slope(scale, temperature)
    cap_per_z = per_cap(softcap, temperature)
    LIFT: tl.constexpr = bias_ptr is not None
    z = final_logits(z, scale, softcap, inverse(temperature), LIFT)
    top = column(max_logit_ptr, rows, counts, 1e30)
    a = column(a_ptr, rows, counts, 0)
    b = column(b_ptr, rows, counts, 0)
    c = column(c_ptr, rows, counts, 0)
    d = column(d_ptr, rows, counts, 0)
    e = column(e_ptr, rows, counts, 0)
    f = column(f_ptr, rows, counts, 0)
    y = column(target_ptr, rows, counts, 0)
    argmax = column(prediction_ptr, rows, counts, 0)
    classes = (first + local)[None, :]
    dz = dlogits(
        z, classes, top, a, b, c, d, e, f, None, y, argmax, None, None, slope, cap_per_z, LIFT
    )  # fmt: skip
    out_ptr += tl.cast(row0, tl.int64) * out_stride
    offs = tl.arange(0, BM)[:, None] * out_stride + local[None, :]
    mask = (rows < N)[:, None] & (local < width)[None, :]
    tl.store(out_ptr + offs, dz.to(out_ptr.dtype.element_ty), mask=mask)
