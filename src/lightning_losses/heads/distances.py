# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Distances between features and class centres, for the harmonic distance head."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_losses.losses.shared.rows_math import unit

#: Differences of a block of classes at a time: (rows, classes, D) beyond this is never held.
BLOCK = 2**24


def cosine(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``1 - cos``."""
    # |u - v|^2 / 2 of unit vectors, which does not cancel for near ones; their dot product does.
    return 0.5 * _blocks(lambda d, _, __: d.square().sum(-1), unit(x), unit(w)) + eps


def euclidean(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``sqrt(sum (x - w)^2 + eps)``: under the root, whose slope at 0 is infinite."""
    return _blocks(lambda d, _, __: (d.square().sum(-1) + eps).sqrt(), x, w)


def manhattan(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``sum |x - w|``."""
    return _blocks(lambda d, _, __: d.abs().sum(-1), x, w) + eps


def minkowski(x: Tensor, w: Tensor, eps: float, p: float) -> Tensor:
    """``(sum |x - w|^p)^(1/p)``; eps on each coordinate, under the root and after it."""

    def distance(d: Tensor, _: Tensor, __: Tensor) -> Tensor:
        return ((d.abs() + eps).pow(p).sum(-1) + eps).pow(1 / p) + eps

    return _blocks(distance, x, w)


def chebyshev(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``max |x - w|``."""
    return _blocks(lambda d, _, __: d.abs().amax(-1), x, w) + eps


def canberra(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``sum |x - w| / (|x| + |w|)``."""
    return _blocks(lambda d, a, b: (d.abs() / (a.abs() + b.abs() + eps)).sum(-1), x, w) + eps


def bray_curtis(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """``sum |x - w| / sum (|x| + |w|)``.

    Of absolute values: the usual signed sum is near 0 for centred features.
    """

    def distance(d: Tensor, a: Tensor, b: Tensor) -> Tensor:
        return d.abs().sum(-1) / ((a.abs() + b.abs()).sum(-1) + eps)

    return _blocks(distance, x, w) + eps


def hamming(x: Tensor, w: Tensor, eps: float) -> Tensor:
    """Soft: ``sum |s(x) - s(w)|`` with ``s(v) = sigmoid((v - 0.5) / 0.1)``."""
    soft = (((v - 0.5) / 0.1).sigmoid() for v in (x, w))
    return _blocks(lambda d, _, __: d.abs().sum(-1), *soft) + eps


def _blocks(distance: Callable[[Tensor, Tensor, Tensor], Tensor], x: Tensor, w: Tensor) -> Tensor:
    """Distances ``(..., C)`` from differences ``(..., block, D)``."""
    rows = x.unsqueeze(-2)
    step = max(1, BLOCK // max(x.numel(), 1))
    parts = [distance(rows - part, rows, part) for part in torch.split(w, step)]
    return torch.cat(parts, -1) if parts else x.new_zeros(*x.shape[:-1], 0)
