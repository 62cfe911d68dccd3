# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metric mixup: between a positive and a negative there is a point that is a bit of each."""

from __future__ import annotations

import random

import torch
from torch import Tensor

from lightning_losses.distributed import row_offset
from lightning_losses.losses.shared.pairs import PairLoss, Pairs, distance, mean_of_active
from lightning_losses.losses.shared.rows_math import unit


class MetricMixup(PairLoss):
    """``lam relu(d(a, m) - positive_margin) + (1 - lam) relu(negative_margin - d(a, m))``.

    Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning" (Metrix), arXiv
    2106.04990: the contrastive loss of an anchor and ``m = lam positive + (1 - lam) negative``, a
    mixture of embeddings, scaled to length 1 again. ``lam`` is drawn from Beta(alpha, alpha) once a
    step, positive and negative of an anchor at random; both terms are means over what is not 0.
    It stands beside the loss of the clean pairs: ``loss=[contrastive,metric_mixup]``.

    The draws depend on seed and optimizer step alone, so that ranks agree; a loop of your own calls
    ``objective.set_step(step)``.

    Args:
        alpha: of the Beta distribution, positive.
        positive_margin: a positive costs nothing within it.
        negative_margin: a negative costs nothing beyond it.
        seed: of the draws.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; one number for the batch of
    all ranks. See `PairLoss` for other ways to say what is a pair; ``active`` is the share of rows
    that have a positive and a negative.
    """

    def __init__(
        self,
        alpha: float = 2.0,
        positive_margin: float = 0.0,
        negative_margin: float = 0.5,
        seed: int = 0,
    ) -> None:
        super().__init__()
        if not alpha > 0:
            raise ValueError(f"alpha must be positive, got {alpha}.")
        self.alpha, self.seed = alpha, seed
        self.positive_margin, self.negative_margin = positive_margin, negative_margin
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Draw for this optimizer step."""
        self.step = step
        self.lam = random.Random(f"{self.seed}/{step}").betavariate(self.alpha, self.alpha)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """The loss of the batch, 0-dim."""
        x, columns = pairs.anchors.x, pairs.columns.x
        pos, neg = pairs.masks(0, len(x))
        first = row_offset(x)
        draws = self._draws(first + len(x))[:, first:].to(x.device)
        both = pos.any(1) & neg.any(1)
        near, far = (columns[_pick(mask, u)] for mask, u in zip((pos, neg), draws, strict=True))
        pull, push = self.of_triples(x, near, far)
        pull, push = (torch.where(both, part, 0) for part in (pull, push))
        self.diagnostics = {"active": pairs.per_sample(both.float())}
        loss = self.lam * mean_of_active(pull, pull > 0)
        loss = loss + (1 - self.lam) * mean_of_active(push, push > 0)
        return loss + pairs.nothing()

    def of_triples(self, anchor: Tensor, near: Tensor, far: Tensor) -> tuple[Tensor, Tensor]:
        """Both hinges ``(n,)`` of unit vectors ``(n, D)``."""
        mixed = unit(self.lam * near + (1 - self.lam) * far)
        d = distance((anchor * mixed).sum(1))
        return (d - self.positive_margin).relu(), (self.negative_margin - d).relu()

    def _draws(self, size: int) -> Tensor:
        """Uniform ``(2, size)``; row i of a batch has the same whatever the ranks."""
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.step)
        return torch.rand(size, 2, generator=generator, dtype=torch.float64).t()


def _pick(mask: Tensor, u: Tensor) -> Tensor:
    """A column of each row's mask, by a number between 0 and 1; the first where it is empty."""
    count = mask.sum(1)
    wanted = (u * count).long().minimum((count - 1).clamp(min=0))
    return ((mask.cumsum(1) == wanted[:, None] + 1) & mask).to(torch.uint8).argmax(1)
