# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Triplet margin loss over every triplet of the batch, at quadratic memory."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.shared.mining import Mining
from lightning_losses.losses.shared.pairs import PairLoss, Pairs, distance, mean_of_active


class TripletMargin(PairLoss):
    """``relu(d(anchor, positive) - d(anchor, negative) + margin)``, mean over active triplets.

    Schroff, Kalenichenko and Philbin, "FaceNet", arXiv 1503.03832; d is the Euclidean distance of
    unit vectors. The batch holds a cubic number of triplets; the negatives of an anchor are sorted
    instead, and running sums give each positive its share, so that memory stays quadratic.

    Args:
        margin: in units of the distance, which is between 0 and 2.
        mining: which pairs are kept, see `lightning-losses show supcon`, and of them every
            triplet: ``hard`` is that of Hermans et al., arXiv 1703.07737. But ``semihard`` chooses
            triplets, FaceNet's: of each positive the negatives that are farther, within the margin.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; one number for the batch
    of all ranks. See `PairLoss` for other ways to say what is a pair; ``active`` is the share of a
    row's triplets.

    Raises:
        ValueError: a negative margin, an unknown kind of mining.
    """

    def __init__(self, margin: float = 0.05, mining: Mining = "all") -> None:
        # Masks of pairs cannot say which of their triplets are semi-hard: `_triplets` does.
        super().__init__("all" if mining == "semihard" else mining)
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, got {margin}.")
        self.margin, self.semihard = margin, mining == "semihard"

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """The loss of the batch, 0-dim."""
        one = self.mining in ("hard", "easy_positive")  # one triplet an anchor: nothing to sort
        total, active, count = self.each(pairs, self._one_triplet if one else self._triplets)
        self.diagnostics["active"] = pairs.per_sample(active / count.clamp(min=1))
        return mean_of_active(total, active) + pairs.nothing()

    def _one_triplet(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, ...]:
        d = distance(s)
        both = pos.any(1) & neg.any(1)
        farthest = torch.where(pos, d, -1).amax(1)
        nearest = torch.where(neg, d, 3).amin(1)
        loss = torch.where(both, farthest - nearest + self.margin, 0).relu()
        return loss, loss > 0, both.long()

    def _triplets(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, ...]:
        d = distance(s)
        # Farther than any positive plus margin, so never counted. Not inf: 0 times it is NaN.
        none = 4 + self.margin
        near = torch.where(neg, d, none).sort(1).values
        sums = torch.cat([near.new_zeros(len(near), 1), near.cumsum(1)], 1)
        limit = (d + self.margin).contiguous()
        stop = torch.searchsorted(near.detach(), limit.detach())
        start = torch.zeros_like(stop)
        if self.semihard:
            start = torch.searchsorted(near.detach(), d.detach().contiguous(), right=True)
            start = start.minimum(stop)
        count = torch.where(pos, stop - start, 0)
        inside = sums.gather(1, stop) - sums.gather(1, start)
        total = torch.where(pos, count * limit - inside, 0)
        return total.sum(1), count.sum(1), pos.sum(1) * neg.sum(1)
