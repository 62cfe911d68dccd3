# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-similarity loss: weighs each pair by how it compares with the other pairs of its anchor."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.shared.mining import Mining, within_epsilon
from lightning_losses.losses.shared.pairs import PairLoss, Pairs, masked_logsumexp


class MultiSimilarity(PairLoss):
    """``log(1 + sum_pos exp(-alpha (s - b))) / alpha + log(1 + sum_neg exp(beta (s - b))) / beta``.

    Weighted positives and negatives of every anchor, after mining; s cosines, b the ``base``.
    Wang et al., "Multi-Similarity Loss with General Pair Weighting", arXiv 1904.06627. An anchor
    without a pair on both sides counts as 0, as in the authors' code. To get the numbers of

    - the authors' code: ``beta: 40`` (it drops duplicates of a row as if they were the row itself);
    - pytorch-metric-learning, ``MultiSimilarityLoss()`` with ``MultiSimilarityMiner(0.1)``: the
      defaults; without a miner: ``miner_epsilon: null``.

    Args:
        alpha: sharpness over positives.
        beta: sharpness over negatives (the authors' configuration has 40, their paper 50).
        base: similarity at which a pair has weight one half.
        miner_epsilon: keep negatives above the hardest positive minus this, and positives below
            the hardest negative plus this; None keeps all pairs, and anchors with one side only.
        mining: another kind of mining, before this one; see `lightning-losses show supcon`. Write
            it with ``miner_epsilon=None`` to have it alone.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; per-row values ``(B,)``. See
    `PairLoss` for other ways to say what is a pair.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        beta: float = 50.0,
        base: float = 0.5,
        miner_epsilon: float | None = 0.1,
        mining: Mining = "all",
    ) -> None:
        super().__init__(mining)
        if not (alpha > 0 and beta > 0):
            raise ValueError(f"alpha and beta must be positive, got {alpha} and {beta}.")
        self.alpha, self.beta, self.base, self.miner_epsilon = alpha, beta, base, miner_epsilon

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Per-row values ``(B,)``: local anchors against the rows of all ranks."""
        values, active = self.each(pairs, self._anchors)
        self.diagnostics["active"] = pairs.per_sample(active.to(values.dtype))
        return pairs.per_sample(values + pairs.nothing())

    def _anchors(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
        if self.miner_epsilon is not None:
            pos, neg = within_epsilon(s.detach(), pos, neg, self.miner_epsilon)
        loss = _soft_sum(-self.alpha, s, self.base, pos) + _soft_sum(self.beta, s, self.base, neg)
        if self.miner_epsilon is None:
            return loss, (pos | neg).any(1)
        both = pos.any(1) & neg.any(1)
        return torch.where(both, loss, 0.0), both


def _soft_sum(scale: float, s: Tensor, base: float, mask: Tensor) -> Tensor:
    """``log(1 + sum exp(scale (s - base))) / |scale|`` of each row over the mask, ``(n,)``.

    0 where the mask is empty.
    """
    total = masked_logsumexp(scale * s, mask) - scale * base
    return torch.logaddexp(total, torch.zeros_like(total)) / abs(scale)
