# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""ICNN loss: neighbours of a row are of its class, and near compared with those that are not."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.validation import same_rows


class ICNN(nn.Module):
    """``-log((Lambda + Gamma) / 2)`` of the k nearest neighbours of every row of all ranks.

    "SuSana Distancia is all you need" (few-shot learning, 2023). Gamma is the mean share of
    neighbours of the row's own class (no gradient); Lambda the mean of two scores between 0 and 1:
    own-class neighbours near compared with the nearest of another class, and those of other classes
    far compared with the farthest such neighbour of all rows.
    ``d = sqrt(|x - y|^2 + 1e-6)``.

    Args:
        k: neighbours of a row, at least 1; of fewer than k + 3 rows as many as there are.

    Shapes: features ``(B, D)``, target ``(B,)``, negative for none; one number for the batch of all
    ranks, 0 for fewer than three rows. Memory is quadratic in the rows of all ranks.
    """

    scope = "batch"
    contract = Contract(target=("label",), head="none")

    def __init__(self, k: int = 4) -> None:
        super().__init__()
        if k < 1:
            raise ValueError(f"k must be at least 1, got {k}.")
        self.k = k

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        if features.ndim != 2:
            raise ValueError(f"features must be (B, D), got {tuple(features.shape)}.")
        same_rows(features=features, target=target)
        counts = target >= 0 if valid is None else valid & (target >= 0)
        x, y, counts = (
            gather_with_gradient(part)
            for part in (torch.where(counts[:, None], features, 0), target, counts)
        )
        nothing = (x * 0).sum()
        n = len(x)
        if n < 3:
            return nothing
        squared = (x[:, None] - x[None]).square().sum(-1)
        d = (squared + 1e-6).sqrt()
        other = counts[:, None] & counts & ~torch.eye(n, dtype=torch.bool, device=x.device)
        # Rows that count may be fewer: of n of them the furthest neighbour asked for is the n-2nd.
        rows = counts.sum()
        width = min(self.k + 1, n - 1)
        near, at = torch.where(other, d, torch.inf).topk(width, dim=1, largest=False)
        asked = torch.arange(width, device=x.device) < (rows - 1).clamp(max=self.k + 1)
        there = counts[:, None] & asked & near.isfinite()
        same = there & (y[at] == y[:, None])
        foreign = there & ~same
        few = rows <= self.k + 2
        within = asked & (torch.arange(width, device=x.device) < (rows - 2).clamp(max=self.k))
        score = self._distances(torch.where(there, near, 0), same, foreign, there & within)
        share = (same & within).sum(1) / within.sum().clamp(min=1)
        gamma = (share * counts).sum() / rows.clamp(min=1)
        gamma = torch.where(few, 1.0, gamma.to(score.dtype))
        value = -((score + gamma) / 2).clamp(min=torch.finfo(x.dtype).tiny).log()
        return torch.where(rows > 2, value, 0) + nothing

    def _distances(self, d: Tensor, same: Tensor, foreign: Tensor, near: Tensor) -> Tensor:
        """Lambda, of neighbours ``(n, k + 1)`` in order of their distance."""
        nearest = torch.where(foreign, d, torch.inf).amin(1, keepdim=True)
        alone = nearest.isinf()
        ratio = torch.where(alone, 0, d / (torch.where(alone, 1, nearest) + 1e-7))
        ratio = torch.where(near, ratio, 0)
        ratio = ratio / ratio.amax(1, keepdim=True).clamp(min=1)
        own, others = same & near, foreign & near
        intra = 1 - _mean(_mean(ratio, own), own.any(1))
        far = torch.where(others, d, 0)
        relative = far / far.max().clamp(min=1e-12)  # the largest of all rows
        some = others.any(1)
        inter = torch.where(some.any(), _mean(_mean(relative, others), some), 1.0)
        return (intra + inter) / 2


def _mean(x: Tensor, mask: Tensor) -> Tensor:
    """Mean over the mask along the last axis; 0 where it is empty."""
    return torch.where(mask, x, 0).sum(-1) / mask.sum(-1).clamp(min=1)
