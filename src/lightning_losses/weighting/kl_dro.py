# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""KL-DRO: the worst-case weights of rows within a KL ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_max, all_sum
from lightning_losses.losses.shared.moving_log_mean import MovingLogMean


class KLDRO(nn.Module):
    """Weights proportional to ``exp(loss / radius)``, with mean 1 over the rows that count.

    The gradient is that of ``radius * log mean exp(loss / radius)``, the worst case over weights
    with a KL penalty (doubly robust instance reweighting). A large radius gives the plain mean.

    The mean in that logarithm is over all data, and a small batch knows it badly: with rows drawn
    at random the plain weights follow the worst rows of the batch, biased towards the mean of the
    batch. With ``rate`` below 1 the mean is a moving average over steps instead (`MovingLogMean`,
    in logarithms, in checkpoints, the same on all ranks), so that a batch of easy rows as a whole
    weighs less than one of hard rows, and the mean of the weights is 1 only over many steps.

    Args:
        radius: temperature of the weights, in units of the loss, positive.
        rate: of the moving average, in (0, 1]; 1 takes the batch's own mean.

    Raises:
        ValueError: a radius that is not positive, or a rate outside (0, 1].

    Examples:
        >>> losses, valid = torch.tensor([1.0, 3.0]).log(), torch.tensor([True, True])
        >>> KLDRO(radius=1.0)(losses, valid)
        tensor([0.5000, 1.5000])
    """

    def __init__(self, radius: float = 1.0, rate: float = 1.0) -> None:
        super().__init__()
        if not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}.")
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {rate}.")
        self.radius = radius
        self.smoothed = MovingLogMean(rate) if rate < 1 else None

    def forward(self, losses: Tensor, valid: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        x = torch.where(valid, losses / self.radius, -torch.inf)
        # Without rows there is no largest one; any finite number does.
        top = x.max() if len(x) else x.new_full((), -torch.inf)
        top = all_max(top).clamp(min=torch.finfo(x.dtype).min)
        e = (x - top).exp()
        total, count = all_sum(torch.stack([e.sum(), valid.sum().to(e.dtype)]))
        if self.smoothed is None:
            weights: Tensor = e * count / torch.where(total > 0, total, 1.0)
            return weights
        now = top + (total / count.clamp(min=1)).log()  # -inf without rows
        log_mean = self.smoothed.mixed(now)
        if self.training and torch.is_grad_enabled():
            self.smoothed.write(now)
        return (x - torch.where(log_mean == -torch.inf, 0.0, log_mean)).exp()
