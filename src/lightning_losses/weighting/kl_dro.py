# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""KL-DRO: the worst-case weights of rows within a KL ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_max, all_sum


class KLDRO(nn.Module):
    """Weights proportional to ``exp(loss / radius)``, with mean 1 over the rows that count.

    The gradient is that of ``radius * log mean exp(loss / radius)``, the worst case over weights
    with a KL penalty (doubly robust instance reweighting). A large radius gives the plain mean.

    Args:
        radius: temperature of the weights, in units of the loss, positive.
    """

    def __init__(self, radius: float = 1.0) -> None:
        super().__init__()
        if not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}.")
        self.radius = radius

    def forward(self, losses: Tensor, valid: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        x = torch.where(valid, losses / self.radius, -torch.inf)
        # Without rows there is no largest one; any finite number does.
        top = x.max() if len(x) else x.new_full((), -torch.inf)
        top = all_max(top).clamp(min=torch.finfo(x.dtype).min)
        e = (x - top).exp()
        total, count = all_sum(torch.stack([e.sum(), valid.sum().to(e.dtype)]))
        weights: Tensor = e * count / torch.where(total > 0, total, 1.0)
        return weights
