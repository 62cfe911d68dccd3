# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dice loss: a smooth F1, so that easy negatives do not drown rare positives."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import (
    all_sum,
    gather_with_gradient,
    reduce_with_gradient,
    row_offset,
)
from lightning_losses.losses.shared.one_vs_rest import keep, one_vs_rest


class Dice(nn.Module):
    """``1 - (2 sum q t + s) / (sum q^2 + sum t^2 + s)`` with ``q = (1 - p)^alpha p``.

    Li et al., "Dice Loss for Data-imbalanced NLP Tasks", arXiv 1911.02855, with the values that all
    scripts of theirs set; the defaults of their class are others (alpha 0, smooth 1e-4, no squares)
    and make gradients of several classes fall as 1 / N. The factor (1 - p)^alpha turns away from
    rows that are already learned; with alpha > 0 a perfect row does not reach 0.

    Dice over a batch is no mean over rows: accumulating gradients is not a larger batch.

    With ``ohem`` above 0 only hard negatives count (online hard example mining): of binary scores
    the ``int(ohem * positives)`` negatives of highest p, of classes for each class the
    ``int(ohem * positives / C)`` hardest ones, of these those that are predicted as that class; p
    and t of all others are 0. The counts are those of all ranks. This is what the authors write;
    their code keeps two negatives fewer, and with classes raises. Needs hard labels.

    Args:
        alpha: self-adjusting exponent, at least 0.
        smooth: s, positive.
        square: squares in the denominator (Milletari et al., arXiv 1606.04797). Without them q t is
            taken as min(q, t): the same for labels of 0 and 1, and least at q = t for soft ones.
        style: ``repo`` as the authors' code: binary scores make one set of the whole batch;
            classes are summed, each row's numerator over the row's own denominator (without
            ``square``, over the batch's), so values are near C. ``paper`` as they write: each row
            by itself, mean over classes. For a plain batch Dice a class, use `tversky`.
        ohem: hard negatives to a positive; 0, the default, keeps all. 0 to 0.3 in their scripts.

    Shapes: binary logits ``(N,)`` or ``(N, 1)`` with target ``(N,)`` in [0, 1], or ``(N, C)`` with
    indices ``(N,)`` or soft targets ``(N, C)``. Per-row values ``(N,)``; one number for binary
    scores in style ``repo``.
    """

    contract = Contract(target=("class", "soft", "binary"))

    def __init__(
        self,
        alpha: float = 0.01,
        smooth: float = 1.0,
        square: bool = True,
        style: Literal["repo", "paper"] = "repo",
        ohem: float = 0.0,
    ) -> None:
        super().__init__()
        if not (alpha >= 0 and smooth > 0):
            raise ValueError(f"dice needs alpha >= 0 and smooth > 0, got {alpha} and {smooth}.")
        if style not in ("repo", "paper"):
            raise ValueError(f"style must be 'repo' or 'paper', got {style!r}.")
        if not ohem >= 0:
            raise ValueError(f"ohem is a ratio and must be at least 0, got {ohem}.")
        self.alpha, self.smooth, self.square, self.style = alpha, smooth, square, style
        self.ohem = ohem
        self.scope = "rows" if style == "paper" and not ohem else "batch"

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``, or 0-dim."""
        log_p, log_rest, t, binary = one_vs_rest(logits, target, valid, hard=self.ohem > 0)
        # By logarithms: 1 - p rounds to 0 for a confident mistake.
        q = (log_p + self.alpha * log_rest).exp() if self.alpha else log_p.exp()
        if self.ohem:
            hard = self.kept(log_p.detach(), t, valid)
            q, t = torch.where(hard, q, 0.0), torch.where(hard, t, 0.0)
        if self.square:
            numerator, mass = 2 * q * t, q**2 + t**2
        else:
            numerator, mass = 2 * (q - F.relu(q - t)), q + t
        s = self.smooth
        if self.style == "paper":
            return (1 - (numerator + s) / (mass + s)).mean(1)
        if binary:
            counts = torch.ones_like(q)
            sums = torch.stack([keep(x, valid).sum() for x in (numerator, mass, counts)])
            above, below, rows = reduce_with_gradient(sums)
            return torch.where(rows > 0, 1 - (above + s) / (below + s), above)
        if not self.square:
            mass = reduce_with_gradient(keep(mass, valid).sum(0))
        return (1 - (numerator + s) / (mass + s)).sum(1)

    def kept(self, log_p: Tensor, t: Tensor, valid: Tensor | None = None) -> Tensor:
        """Which of ``(N, K)`` count: the positives, and the hardest negatives of all ranks."""
        counts = torch.ones_like(t, dtype=torch.bool)
        counts = counts if valid is None else counts & valid[:, None]
        positive = counts & (t > 0.5)
        negative = counts & ~positive
        score = torch.where(negative, log_p, -torch.inf)
        everyone = gather_with_gradient(score)
        first = row_offset(score)
        # By place after sorting, so that of equal scores exactly so many are kept.
        order = everyone.argsort(dim=0, descending=True, stable=True)
        place = torch.empty_like(order).scatter_(0, order, _numbered(order))
        budget = all_sum(positive.sum(0)).to(log_p.dtype) * self.ohem / log_p.shape[1]
        # Not one fewer where a product such as 10 * 0.3 is rounded downwards.
        budget = (budget + 16 * torch.finfo(log_p.dtype).eps * budget).floor()
        hard = negative & (place[first : first + len(score)] < budget)
        if log_p.shape[1] > 1:
            hard = hard & (log_p.argmax(1, keepdim=True) == _numbered(log_p.mT).mT)
        return positive | hard


def _numbered(like: Tensor) -> Tensor:
    """Row numbers ``(N, K)``."""
    return torch.arange(len(like), device=like.device)[:, None].expand(like.shape)
