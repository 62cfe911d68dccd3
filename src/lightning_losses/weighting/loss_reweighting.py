# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dynamic loss-based reweighting: rows weigh by where their loss lies within the batch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_max, all_sum
from lightning_losses.schedules import Schedule, as_schedule


class LossReweighting(nn.Module):
    """Weights proportional to ``exp(f(h) / radius)``, with mean 1 over the rows that count.

    h in [-1, 1] is the loss between the smallest and the largest of the batch (of all ranks), and f
    says which rows are wanted: ``linupper`` min(h + 1, 1), all but low losses; ``quadratic``
    1 - h^2, the middle; ``extremes`` abs(h); ``upper`` (h + 1) / 2, the largest. Sow et al.,
    "Dynamic Loss-Based Sample Reweighting for Improved Large Language Model Pretraining",
    arXiv 2502.06733 (its delta is 1 here). The authors lower the radius from large values.

    Args:
        strategy: f.
        radius: temperature of the weights, positive; large is the plain mean. A number, a schedule
            of the optimizer step, or the fields of a linear one, ``{start: 2.0, end: 0.4, steps:
            10000}``, as the authors lower it.
        warmup: optimizer steps with all weights 1; 1000 in the authors' runs.

    Raises:
        ValueError: an unknown strategy; a radius that is not positive, at any step.

    Examples:
        >>> losses, valid = torch.tensor([0.0, 1.0, 2.0]), torch.ones(3, dtype=torch.bool)
        >>> LossReweighting(strategy="quadratic", radius=1.0)(losses, valid)
        tensor([0.6358, 1.7284, 0.6358])
    """

    def __init__(
        self,
        strategy: Literal["linupper", "quadratic", "extremes", "upper"] = "linupper",
        radius: float | Schedule | Mapping[str, float] = 0.4,
        warmup: int = 0,
    ) -> None:
        super().__init__()
        if strategy not in ("linupper", "quadratic", "extremes", "upper"):
            raise ValueError(
                "strategy must be 'linupper', 'quadratic', 'extremes' or 'upper', got "
                f"{strategy!r}."
            )
        if isinstance(radius, (int, float)) and not radius > 0:
            raise ValueError(f"radius must be positive, got {radius}.")
        self.strategy, self.schedule, self.warmup = strategy, as_schedule(radius), warmup
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Weigh rows from step ``warmup`` on. Raises ValueError for a radius that is none."""
        self.active = step >= self.warmup
        self.radius = float(self.schedule(step))
        if not self.radius > 0:
            raise ValueError(
                f"radius must be positive, got {self.radius} at step {step} of {self.schedule!r}."
            )

    def forward(self, losses: Tensor, valid: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        if not self.active:
            return valid.to(losses.dtype)
        f = self._wanted(self.place(losses, valid))
        e = torch.where(valid, ((f - 1) / self.radius).exp(), 0.0)  # f is at most 1
        total, count = all_sum(torch.stack([e.sum(), valid.sum().to(e.dtype)]))
        weights: Tensor = e * count / torch.where(total > 0, total, 1.0)
        return weights

    def place(self, losses: Tensor, valid: Tensor) -> Tensor:
        """h ``(N,)``: -1 for the smallest loss of the batch, 1 for the largest."""
        lowest = torch.finfo(losses.dtype).min
        # One more entry: without rows there is no largest. Both ends in one exchange.
        ends = torch.stack([torch.where(valid, s * losses, lowest) for s in (1, -1)])
        ends = torch.cat([ends, ends.new_full((2, 1), lowest)], dim=1)
        top, low = all_max(ends.amax(1))
        top, low = torch.where(top > lowest, top, 0.0), -torch.where(low > lowest, low, 0.0)
        # The floor is the authors': equal losses have h = 0.
        h = 2 * (losses - (top + low) / 2) / (top - low).clamp(min=1e-6)
        return h.clamp(-1, 1)

    def _wanted(self, h: Tensor) -> Tensor:
        if self.strategy == "linupper":
            return (h + 1).clamp(max=1)
        if self.strategy == "quadratic":
            return 1 - h.square()
        return h.abs() if self.strategy == "extremes" else (h + 1) / 2
