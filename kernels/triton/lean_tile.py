# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One tile of hidden times head, ``(BM, BV)`` float32 in registers: the work of mode lean."""

from __future__ import annotations

import torch
import triton
import triton.language as tl
from torch import Tensor
from triton.tools.tensor_descriptor import TensorDescriptor

from . import tiles
from .common import interpreted

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@triton.jit
def swizzle_pid(pid, row_blocks, column_blocks, GROUP: tl.constexpr):
    """(row block, column block) of a program: GROUP row blocks go through the columns together.

    What runs at one time then shares both its hidden rows (GROUP 128 D 2 bytes, 16 MiB at
    D = 4096) and its slice of the head in the L2 cache.
    """
    group = pid // (GROUP * column_blocks)
    first = group * GROUP
    size = tl.minimum(row_blocks - first, GROUP)
    within = pid - group * GROUP * column_blocks
    return first + within % size, within // size


@triton.jit
def tile_logits(
    h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, row0, col0, N, V, D,
    BM: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, EVEN_D: tl.constexpr,
    PRECISION: tl.constexpr, acc=None, USE_TMA: tl.constexpr = False,
):  # fmt: skip
    """``hidden[row0:row0+BM] @ head[col0:col0+BV].T``, plus `acc` if given.

    USE_TMA: `h_ptr` and `w_ptr` are tensor descriptors, and strides, N, V and EVEN_D are not read.
    Rows and classes past the end are then 0; else they repeat the last one instead of being masked,
    because unmasked loads are wide and asynchronous, and only D is masked, unless BD divides it.
    Either way the caller drops them.
    """
    if acc is None:
        acc = tl.zeros((BM, BV), tl.float32)
    if USE_TMA:
        for k in range(0, D, BD):
            h = h_ptr.load([row0, k])
            w = w_ptr.load([col0, k])
            acc = tl.dot(h, tl.trans(w), acc, input_precision=PRECISION)
    else:
        ks = tl.arange(0, BD)
        # 64-bit to the tile's corner (V D passes 2^31), 32-bit inside it.
        h_ptr += tl.cast(row0, tl.int64) * h_stride
        w_ptr += tl.cast(col0, tl.int64) * w_stride
        rows = tl.minimum(tl.arange(0, BM), N - 1 - row0)
        cols = tl.minimum(tl.arange(0, BV), V - 1 - col0)
        h_ptrs = h_ptr + rows[:, None] * h_stride + ks[None, :] * h_step
        w_ptrs = w_ptr + cols[:, None] * w_stride + ks[None, :] * w_step
        for k in range(0, D, BD):
            if EVEN_D:
                h = tl.load(h_ptrs)
                w = tl.load(w_ptrs)
            else:
                h = tl.load(h_ptrs, mask=ks[None, :] < D - k, other=0.0)
                w = tl.load(w_ptrs, mask=ks[None, :] < D - k, other=0.0)
            acc = tl.dot(h, tl.trans(w), acc, input_precision=PRECISION)
            h_ptrs += BD * h_step
            w_ptrs += BD * w_step
    return acc


def pointers(hidden: Tensor, head: Tensor) -> dict[str, object]:
    """Arguments of a kernel that reads both operands by pointer."""
    return {
        "h_ptr": hidden,
        "h_stride": hidden.stride(0),
        "h_step": hidden.stride(1),
        "w_ptr": head,
        "w_stride": head.stride(0),
        "w_step": head.stride(1),
    }


def operands(hidden: Tensor, head: Tensor, tile: tiles.Tile, use_tma: bool) -> dict[str, object]:
    """Arguments of a kernel that calls `tile_logits`; `use_tma`: what `tiles.descriptors` says.

    Descriptors are made on the host. One made in the kernel needs memory from an allocator that is
    the caller's to set (`triton.set_allocator`), and that the thread of autograd does not see.
    """
    arguments = pointers(hidden, head)
    if use_tma:
        arguments["h_ptr"] = TensorDescriptor.from_tensor(hidden, [tile.rows, tile.depth])
        arguments["w_ptr"] = TensorDescriptor.from_tensor(head, [tile.classes, tile.depth])
    return arguments | {
        "D": hidden.shape[1],
        "BM": tile.rows,
        "BV": tile.classes,
        "BD": tile.depth,
        "EVEN_D": use_tma or hidden.shape[1] % tile.depth == 0,
        "USE_TMA": use_tma,
        "PRECISION": precision(hidden),
    }


def precision(x: Tensor) -> str:
    """How float32 products are made: exactly unless torch was told that TF32 will do."""
    if x.dtype != torch.float32 or interpreted() or torch.version.hip is not None:
        return "ieee"
    # Follows the older setting too; reading that one raises once this one was written.
    return "tf32" if torch.backends.cuda.matmul.fp32_precision == "tf32" else "tf32x3"


def aligned(x: Tensor) -> Tensor:
    """x ``(n, D)`` with rows of adjacent numbers, and zeros that make D a multiple of 16.

    Rows that do not start on 16 bytes, or are columns, would be read a number at a time, which also
    spills: the copy of the head is cheaper. Few models have such a D, or a transposed head.
    """
    rest = -x.shape[1] % 16
    if rest:
        return torch.nn.functional.pad(x, (0, rest))
    return x if x.stride(1) == 1 else x.contiguous()


def checked(x: Tensor) -> Tensor:
    """Refuse bfloat16 under the interpreter, which would multiply its bit patterns."""
    if x.dtype == torch.bfloat16 and interpreted():
        raise TypeError(
            "Triton's interpreter computes bfloat16 wrong without saying so, and hidden is "
            "bfloat16: write kernel='chunked' on a CPU, or hidden.float()."
        )
    return x
