# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-similarity loss: weighs each pair by how it compares with the other pairs of its anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.shared.pairs import PairLoss, Pairs
from lightning_losses.losses.shared.rows_math import LOWEST


class MultiSimilarity(PairLoss):
    """``log(1 + sum_pos exp(-alpha (s - b))) / alpha + log(1 + sum_neg exp(beta (s - b))) / beta``.

    Weighted positives and negatives of every anchor, after mining; s cosines, b the ``base``.
    Wang et al., "Multi-Similarity Loss with General Pair Weighting", arXiv 1904.06627. An anchor
    without a pair on both sides counts as 0, as in the authors' code.

    Args:
        alpha: sharpness over positives.
        beta: sharpness over negatives (the authors' configuration has 40, their paper 50).
        base: similarity at which a pair has weight one half.
        miner_epsilon: keep negatives above the hardest positive minus this, and positives below
            the hardest negative plus this; None keeps all pairs, and anchors with one side only.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; per-row values ``(B,)``. See
    `PairLoss` for other ways to say what is a pair.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        miner_epsilon: float | None = 0.1,
    ) -> None:
        super().__init__()
        if not (alpha > 0 and beta > 0):
            raise ValueError(f"alpha and beta must be positive, got {alpha} and {beta}.")
        self.alpha, self.beta, self.base, self.miner_epsilon = alpha, beta, base, miner_epsilon

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Per-row values ``(B,)``: local anchors against the rows of all ranks."""
        values, active = pairs.each(self._anchors)
        self.diagnostics = {"active": pairs.per_sample(active.to(values.dtype))}
        return pairs.per_sample(values + pairs.nothing())

    def _anchors(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
        if self.miner_epsilon is not None:
            hardest_pos = torch.where(pos, s, torch.inf).amin(1, keepdim=True).detach()
            hardest_neg = torch.where(neg, s, -torch.inf).amax(1, keepdim=True).detach()
            pos, neg = (
                pos & (s - self.miner_epsilon < hardest_neg),
                neg & (s + self.miner_epsilon > hardest_pos),
            )
        loss = _soft_sum(-self.alpha * (s - self.base), pos) / self.alpha
        loss = loss + _soft_sum(self.beta * (s - self.base), neg) / self.beta
        if self.miner_epsilon is None:
            return loss, (pos | neg).any(1)
        both = pos.any(1) & neg.any(1)
        return torch.where(both, loss, 0.0), both


def _soft_sum(x: Tensor, mask: Tensor) -> Tensor:
    """``log(1 + sum exp x)`` of each row over the mask, ``(n,)``; 0 where the mask is empty."""
    x = torch.where(mask, x, LOWEST)
    return torch.cat([x, torch.zeros_like(x[:, :1])], dim=1).logsumexp(1)
