# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Histogram binning: each class's probability becomes the share of its bin that was this class."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.calibrators.calibrator import Calibrator
from lightning_losses.calibrators.isotonic import normalised


def bin_means(score: Tensor, happened: Tensor, bins: int) -> Tensor:
    """Share of `happened` in each of `bins` equal bins of `score`, `(C, bins)`, of `(N, C)` both.

    Bins are `[lo, hi)`, the last closed. An empty bin gives its centre: nothing is known there, so
    nothing is changed by more than half a bin.
    """
    where = bin_of(score, bins)
    empty = torch.zeros(score.shape[1], bins, dtype=torch.float64, device=score.device)
    hits = empty.scatter_add(1, where.t(), happened.t().double())
    rows = empty.scatter_add(1, where.t(), torch.ones_like(hits[:, :1]).expand(where.t().shape))
    centre = (torch.arange(bins, device=score.device).double() + 0.5) / bins
    return torch.where(rows > 0, hits / rows.clamp(min=1), centre)


def bin_of(score: Tensor, bins: int) -> Tensor:
    """Index of the bin of each score, of the same shape."""
    edges = torch.arange(1, bins, device=score.device, dtype=score.dtype) / bins
    return torch.bucketize(score, edges, right=True)


class HistogramBinning(Calibrator):
    """Bin means of each class against the rest, normalised (Zadrozny and Elkan 2001).

    Can change which class is largest. As in `Isotonic`, a class that was possible before keeps the
    chance of half a row, and a row that is mapped to 0 in every class its softmax.

    Args:
        bins: equal-width bins a class.

    Shapes: `fit` on logits `(N, C)` of any floating dtype and classes `(N,)` int64; logits
    `(..., C)` to probabilities `(..., C)`, float32 at least.

    Raises:
        ValueError: fewer than one bin.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> HistogramBinning(bins=15).fit(logits, target)(logits[:1])
        tensor([[0.7500, 0.2500]])
    """

    names = ("table", "least")
    table: Tensor
    least: Tensor

    def __init__(self, bins: int = 15) -> None:
        super().__init__()
        if bins < 1:
            raise ValueError(f"HistogramBinning needs at least one bin, found bins={bins}")
        self.bins = bins

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The means `(C, bins)`."""
        happened = target[:, None] == torch.arange(logits.shape[1], device=target.device)
        return {
            "table": bin_means(logits.softmax(1), happened, self.bins),
            "least": logits.new_tensor(0.5 / len(logits)),
        }

    def apply_to(self, logits: Tensor) -> Tensor:
        """The means of the bins that the probabilities fall in, normalised."""
        p = logits.softmax(-1)
        table = self.number("table", logits)
        column = torch.arange(p.shape[-1], device=p.device)
        means = table[column, bin_of(p.contiguous(), table.shape[1])]
        return normalised(means, p, self.number("least", logits))
