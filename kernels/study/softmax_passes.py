# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax of materialised rows in two passes, by two algorithms; the plain torch twins.

*Two-pass* (M. Dukhan and A. Ablavatski, arXiv 2001.04438) writes every exp as a pair of mantissa
and exponent, which cannot overflow, so no maximum is needed first. *Online* (M. Milakov and
N. Gimelshein, arXiv 1805.02867) keeps a running maximum and rescales the running sum. Both read a
row twice and write it once, where the textbook reads it three times.
`softmax_passes_triton` has the kernels; benchmarks/softmax_passes.py measures them side by side.
Nothing else here uses them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

#: Classes a step of either pass.
BLOCK = 4096
#: log 2 in two parts: few enough bits in the first that its product with an exponent is exact.
LN2_HIGH, LN2_LOW = 0.693145751953125, 1.428606820309417e-06


def two_pass(z: Tensor) -> Tensor:
    """Softmax over the last dimension of ``(N, V)``, in the dtype of z; float32 at least inside.

    A row that is all -inf gives 0; one with +inf or NaN gives NaN. In float32 logits beyond about
    2e4 in size lose digits, because no maximum is subtracted first.
    """
    mantissa = z.new_zeros(len(z), dtype=_wide(z))
    exponent = torch.full_like(mantissa, -math.inf)
    for block in _blocks(z):
        m, n = pairs(block)
        new = torch.maximum(exponent, n.amax(1))
        base = _anchor(new)
        mantissa = mantissa * (exponent - base).exp2() + (m * (n - base[:, None]).exp2()).sum(1)
        exponent = new
    inverse = torch.where(mantissa == 0, 0, 1 / mantissa)[:, None]
    out = torch.empty_like(z)
    for block, into in zip(_blocks(z), torch.split(out, BLOCK, 1), strict=True):
        m, n = pairs(block)
        into.copy_(m * inverse * (n - _anchor(exponent)[:, None]).exp2())
    return out


def online(z: Tensor) -> Tensor:
    """The same by a running maximum; exact for logits of any size."""
    top = z.new_full((len(z),), -math.inf, dtype=_wide(z))
    s = torch.zeros_like(top)
    for block in _blocks(z):
        new = torch.maximum(top, block.amax(1))
        base = _anchor(new)
        s = s * (top - base).exp() + (block - base[:, None]).exp().sum(1)
        top = new
    inverse = torch.where(s == 0, 0, 1 / s)[:, None]
    out = torch.empty_like(z)
    for block, into in zip(_blocks(z), torch.split(out, BLOCK, 1), strict=True):
        into.copy_((block - _anchor(top)[:, None]).exp() * inverse)
    return out


def pairs(z: Tensor) -> tuple[Tensor, Tensor]:
    """(m, n) with ``exp z = m 2^n``, n whole and m within a factor 2^0.5 of 1; m = 0 at -inf."""
    n = (z / math.log(2)).round()
    t = (z - n * LN2_HIGH) - n * LN2_LOW
    return torch.where(z.isneginf(), 0, t.exp()), n


def _anchor(top: Tensor) -> Tensor:
    """What to subtract: -inf minus -inf would be NaN where it should stay -inf."""
    return torch.where(top.isneginf(), 0, top)


def _blocks(z: Tensor) -> Iterator[Tensor]:
    for block in torch.split(z, BLOCK, 1):
        yield block.to(_wide(z))


def _wide(z: Tensor) -> torch.dtype:
    return torch.promote_types(z.dtype, torch.float32)
