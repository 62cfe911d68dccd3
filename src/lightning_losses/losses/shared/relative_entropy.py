# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where an entropy lies among those of a batch, from -1 to 1: the h of HAPO."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.distributed import all_max, all_sum, gather_with_gradient

#: An entropy of 0 has no logarithm.
LEAST_ENTROPY = 1e-8


class EntropyScale(NamedTuple):
    """What the entropies of a batch are judged by; numbers on its device, 0-dim.

    Examples:
        >>> scale = entropy_scale(torch.tensor([0.1, 0.2, 0.4, 0.8, 3.2]))
        >>> scale.place(torch.tensor([0.1, 0.8, 3.2]))
        tensor([-1.,  0.,  1.])
    """

    middle: Tensor  # log-entropy at the pivot
    above: Tensor  # from there to the largest
    below: Tensor  # from there to the smallest

    def place(self, entropy: Tensor) -> Tensor:
        """h of entropies of any shape in nats: -1 the smallest of the batch, 1 the largest.

        0 at the pivot, with a scale of its own on either side. The authors' code turns the negative
        side round, so that the surest token gets 1.
        """
        gap = entropy.clamp(min=LEAST_ENTROPY).log() - self.middle
        scale = torch.where(gap > 0, self.above, self.below)
        return torch.where(scale > 0, gap / torch.where(scale > 0, scale, 1), 0).clamp(-1, 1)


def entropy_scale(entropy: Tensor, valid: Tensor | None = None, pivot: float = 0.8) -> EntropyScale:
    """The scale of the rows that count of all ranks, without gradient.

    Args:
        entropy: ``(N,)`` nats.
        valid: ``(N,)`` bool, or None for all.
        pivot: the quantile in [0, 1], by nearest rank, that is the middle.

    Examples:
        >>> scale = entropy_scale(torch.tensor([0.5, 1.0, 2.0]), pivot=0.5)
        >>> scale.middle.exp(), scale.place(torch.tensor([0.5, 1.0, 2.0]))
        (tensor(1.), tensor([-1.,  0.,  1.]))
    """
    entropy = entropy.detach()
    valid = torch.ones_like(entropy, dtype=torch.bool) if valid is None else valid
    logs = entropy.clamp(min=LEAST_ENTROPY).log()
    everyone = gather_with_gradient(torch.where(valid, logs, torch.inf)).sort().values
    # One more entry: without rows there is nothing to pick.
    everyone = torch.cat([everyone, everyone.new_zeros(1)])
    count = all_sum(valid.sum())
    place = (pivot * (count - 1).clamp(min=0)).round().long()
    middle = everyone[place]
    gap = torch.where(valid, logs - middle, 0)
    # The largest on either side; one more entry for a rank without rows.
    ends = torch.cat([torch.stack([gap, -gap]), gap.new_zeros(2, 1)], 1).amax(1)
    above, below = all_max(ends)
    return EntropyScale(middle, above, below)
