# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""STEER: actions that would change entropy much count less."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_max


class Steer(nn.Module):
    """Weights that fall with ``|omega|``, an estimate of what an action does to entropy.

    "Rethinking Entropy Interventions in RLVR: An Entropy Change Perspective", arXiv 2510.10150:
    ``omega = A p / p_old (1 - p) (log p + H)``. ``exp``: ``exp(-k |omega|)`` with k such that the
    largest of the batch (at least ``floor``) gets ``low``. ``linear``: from ``high`` for the
    smallest to ``low`` for the largest; the middle if all are equal. The ends are those of the rows
    of all ranks of a call: weights depend on the size of micro-batches. Beside any policy loss:
    ``+weighting@loss.grpo.row_weighting=steer``.

    Args:
        low: the smallest weight, in (0, 1] under exp.
        high: the largest weight of linear; 1.2 in the authors' runs, with low 0.8.
        linear: which of the two.
        floor: |omega| up to which a batch is left alone by exp.

    Raises:
        ValueError: weights or floor out of range.

    Examples:
        >>> log_prob, entropy = torch.tensor([0.99, 0.2]).log(), torch.tensor([0.06, 1.5])
        >>> valid, advantage = torch.tensor([True, True]), torch.ones(2)
        >>> Steer(low=0.8)(-log_prob, valid, log_prob, entropy, log_prob, advantage)
        tensor([0.9987, 0.8000])
    """

    def __init__(
        self, low: float = 0.8, high: float = 1.2, linear: bool = False, floor: float = 0.02
    ) -> None:
        super().__init__()
        if not (0 < low <= 1 and low <= high and floor > 0):
            raise ValueError(
                "low must be in (0, 1] and at most high, floor positive, got "
                f"{low}, {high} and {floor}; write 0.8, 1.2, 0.02."
            )
        self.low, self.high, self.linear, self.floor = low, high, linear, floor

    def forward(
        self,
        losses: Tensor,
        valid: Tensor,
        log_prob: Tensor,
        entropy: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
    ) -> Tensor:
        """Weights ``(N,)``; 0 where not valid."""
        size = self.size(log_prob, entropy, old_log_prob, advantage)
        size = torch.where(valid, size, 0)
        # Largest and smallest in one exchange; one more entry for a rank without rows.
        lowest = torch.finfo(size.dtype).min
        ends = torch.stack([torch.where(valid, sign * size, lowest) for sign in (1, -1)])
        top, low = all_max(torch.cat([ends, ends.new_full((2, 1), lowest)], 1).amax(1))
        low = -low
        if self.linear:
            gap = top - low
            place = (size - low) / torch.where(gap > 0, gap, 1)
            place = torch.where(gap > 0, place, 0.5)
            weights = self.high - place * (self.high - self.low)
        else:
            k = -math.log(self.low) / top.clamp(min=self.floor)
            weights = (-k * size).exp().clamp(min=self.low)
        return torch.where(valid, weights, 0)

    def size(
        self, log_prob: Tensor, entropy: Tensor, old_log_prob: Tensor, advantage: Tensor
    ) -> Tensor:
        """``|omega|`` of each row ``(N,)``; 0 where it is no number."""
        p = log_prob.exp().clamp(1e-8, 1 - 1e-8)
        old = old_log_prob.exp().clamp(min=1e-8)
        omega = advantage / old * p * (1 - p) * (p.log() + entropy)
        return omega.abs().nan_to_num(nan=0.0, posinf=0.0)
