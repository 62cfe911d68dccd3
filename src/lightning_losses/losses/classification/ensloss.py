# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""EnsLoss: a random calibrated loss in every step, so that no single one is overfitted."""

from __future__ import annotations

import random

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient, row_offset
from lightning_losses.losses.classification.binary_cross_entropy import binary_rows


class EnsLoss(nn.Module):
    """``g(s) s`` with s the margin ``(2 t - 1) z`` and g a random slope, drawn anew in every step.

    The slopes of a batch are negative and rise with the margin, as the derivative of a convex
    calibrated loss does: inverse Box-Cox transforms of normal draws, sorted, dealt to the margins
    by rank. Dai, "EnsLoss", arXiv 2409.00908. Only the gradient means something; watch another
    term (weight 0) or a metric.

    The draws depend on seed and optimizer step alone, so runs repeat, ranks agree, and batches of
    one step share them; a loop of your own calls ``objective.set_step(step)``.

    Args:
        power: parameter of the Box-Cox transform; 0 draws from a log-normal.
        period: optimizer steps after which power is drawn anew from U(-1, 1); None: it stays.
        seed: of the draws.

    Shapes: as `BinaryCrossEntropy`, labels in {0, 1}; those of all rows and ranks are ranked
    together.
    """

    scope = "batch"
    contract = Contract(target=("binary", "class"), head="sigmoid")

    def __init__(self, power: float = 0.0, period: int | None = None, seed: int = 0) -> None:
        super().__init__()
        if period is not None and period < 1:
            raise ValueError(f"period must be at least 1 step or None, got {period}.")
        self.power, self.period, self.seed = power, period, seed
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Take the draws of this optimizer step, and every ``period`` steps another power."""
        self.step = step
        if self.period is not None:
            self.power = random.Random(f"{self.seed}/{step // self.period}").uniform(-1, 1)

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``; their gradient is what counts."""
        z, t, _ = binary_rows(logits, target, valid)
        margin = (2 * t - 1) * z
        if valid is None:
            valid = torch.ones_like(margin[:, 0], dtype=torch.bool)
        everyone = gather_with_gradient(margin.detach())
        counts = gather_with_gradient(valid)[:, None].expand_as(everyone)
        draws = self.draw(everyone.numel()).to(everyone)
        g = slopes(everyone.reshape(-1), counts.reshape(-1), draws, self.power)
        start = row_offset(margin)
        return (g.reshape(everyone.shape)[start : start + len(margin)] * margin).mean(1)

    def draw(self, size: int) -> Tensor:
        """Standard normal numbers ``(size,)`` of this step; a longer draw begins with a shorter."""
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.step)
        # On the CPU, the same for every device. torch fills blocks of 16, so whole blocks only:
        # rows that do not count leave the draws of the others as they are.
        blocks = -(-size // 16) * 16
        return torch.randn(blocks, generator=generator, dtype=torch.float64)[:size]


def slopes(margins: Tensor, counts: Tensor, draws: Tensor, power: float) -> Tensor:
    """One slope a margin ``(M,)``, below 0 where it counts and 0 elsewhere, rising with the margin.

    The first of the draws ``(M,)`` are used, as many as there are margins that count.
    """
    if abs(power) < 1e-6:
        transformed = draws.exp()
    else:
        transformed = (1 + power * draws).clamp(min=0).pow(1 / power)  # inf is clipped next
    g = (-transformed).clamp(min=-1)
    used = torch.arange(len(g), device=g.device) < counts.sum()
    g = torch.where(used, g, torch.inf).sort().values
    rank = torch.where(counts, margins, torch.inf).argsort(stable=True).argsort()
    g = g[rank] / margins.clamp(min=1)  # a superlinear tail: less and less slope beyond margin 1
    return torch.where(counts, g - 1e-6, 0.0)
