# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Circle loss: pairs far from their optimum pull harder."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses.losses.shared.mining import Mining
from lightning_losses.losses.shared.pairs import (
    PairLoss,
    Pairs,
    masked_logsumexp,
    mean_of_active,
)


class Circle(PairLoss):
    """``softplus(logsumexp_pos(-gamma a_p (s - 1 + m)) + logsumexp_neg(gamma a_n (s - m)))``.

    Sun et al., "Circle Loss", arXiv 2002.10857: ``a_p = relu(1 + m - s)`` and ``a_n = relu(s + m)``
    weigh a pair by its distance from the optimum and get no gradient. An anchor needs pairs of both
    kinds; the mean is over anchors whose loss is not 0, as in pytorch-metric-learning.

    Args:
        m: relaxation of the margin; the paper has 0.25 for faces and 0.4 for retrieval.
        gamma: scale, positive; the paper has 256 and 80.
        mining: which pairs are kept; see `lightning-losses show supcon`.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; one number for the batch
    of all ranks. See `PairLoss` for other ways to say what is a pair.
    """

    def __init__(self, m: float = 0.4, gamma: float = 80.0, mining: Mining = "all") -> None:
        super().__init__(mining)
        if not gamma > 0:
            raise ValueError(f"gamma must be positive, got {gamma}.")
        self.m, self.gamma = m, gamma

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """The loss of the batch, 0-dim."""
        (loss,) = self.each(pairs, self._anchors)
        self.diagnostics["active"] = pairs.per_sample((loss > 0).float())
        return mean_of_active(loss, loss > 0) + pairs.nothing()

    def _anchors(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor]:
        fixed = s.detach()
        pull = -self.gamma * (1 + self.m - fixed).relu() * (s - 1 + self.m)
        push = self.gamma * (fixed + self.m).relu() * (s - self.m)
        loss = F.softplus(masked_logsumexp(pull, pos) + masked_logsumexp(push, neg))
        return (torch.where(pos.any(1) & neg.any(1), loss, 0),)
