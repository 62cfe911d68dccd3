# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive loss of pairs: positives within one distance, negatives beyond another."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.shared.mining import Mining
from lightning_losses.losses.shared.pairs import PairLoss, Pairs, distance, mean_of_active


class Contrastive(PairLoss):
    """``mean relu(d_pos - positive_margin) + mean relu(negative_margin - d_neg)``.

    Hadsell, Chopra and LeCun, "Dimensionality Reduction by Learning an Invariant Mapping", CVPR
    2006, without its squares, as pytorch-metric-learning has it: d is the Euclidean distance of
    unit vectors, between 0 and 2, and each mean is over the pairs whose loss is not 0.

    Args:
        positive_margin: positives closer than this cost nothing.
        negative_margin: negatives farther than this cost nothing.
        mining: which pairs are kept; see `lightning-losses show supcon`.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; one number for the batch
    of all ranks. See `PairLoss` for other ways to say what is a pair; ``active`` is the share of a
    row's pairs.
    """

    def __init__(
        self,
        positive_margin: float = 0.0,
        negative_margin: float = 1.0,
        mining: Mining = "all",
    ) -> None:
        super().__init__(mining)
        self.positive_margin, self.negative_margin = positive_margin, negative_margin

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """The loss of the batch, 0-dim."""
        pos, active_pos, neg, active_neg, count = self.each(pairs, self._anchors)
        share = (active_pos + active_neg) / count.clamp(min=1)
        self.diagnostics["active"] = pairs.per_sample(share)
        loss = mean_of_active(pos, active_pos) + mean_of_active(neg, active_neg)
        return loss + pairs.nothing()

    def _anchors(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, ...]:
        d = distance(s)
        far = torch.where(pos, d - self.positive_margin, 0).relu()
        near = torch.where(neg, self.negative_margin - d, 0).relu()
        count = (pos | neg).sum(1)
        return far.sum(1), (far > 0).sum(1), near.sum(1), (near > 0).sum(1), count
