# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dice loss: a smooth F1, so that easy negatives do not drown rare positives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import reduce_with_gradient
from lightning_losses.losses.shared.one_vs_rest import keep, one_vs_rest


class Dice(nn.Module):
    """``1 - (2 sum q t + s) / (sum q + sum t + s)`` with ``q = (1 - p)^alpha p``.

    Li et al., "Dice Loss for Data-imbalanced NLP Tasks", arXiv 1911.02855. The factor
    (1 - p)^alpha turns away from rows that are already learned; with alpha > 0 a perfect row does
    not reach 0.

    Dice over a batch is no mean over rows: accumulating gradients is not a larger batch.

    Args:
        alpha: self-adjusting exponent, at least 0.
        smooth: s, positive.
        square: squares in the denominator (Milletari et al., arXiv 1606.04797).
        style: ``repo`` as the authors' code: binary scores make one set of the whole batch;
            classes are summed, each row's numerator over the batch's denominator (over the row's
            own with ``square``), so values are near C. ``paper`` as they write: each row by itself,
            mean over classes. For a plain batch Dice a class, use `tversky`.

    Shapes: binary logits ``(N,)`` with target ``(N,)`` in [0, 1], or ``(N, C)`` with indices
    ``(N,)``. Per-row values ``(N,)``; one number for binary scores in style ``repo``.
    """

    contract = Contract(target=("class", "soft", "binary"))

    def __init__(
        self,
        alpha: float = 0.0,
        smooth: float = 1e-4,
        square: bool = False,
        style: Literal["repo", "paper"] = "repo",
    ) -> None:
        super().__init__()
        if not (alpha >= 0 and smooth > 0):
            raise ValueError(f"dice needs alpha >= 0 and smooth > 0, got {alpha} and {smooth}.")
        if style not in ("repo", "paper"):
            raise ValueError(f"style must be 'repo' or 'paper', got {style!r}.")
        self.alpha, self.smooth, self.square, self.style = alpha, smooth, square, style
        self.scope = "rows" if style == "paper" else "batch"

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``, or 0-dim."""
        p, t = one_vs_rest(logits, target, valid)
        q = p
        if self.alpha:
            # Never 0, where a power below 1 has an infinite slope.
            q = (1 - p).clamp(min=torch.finfo(p.dtype).tiny).pow(self.alpha) * p
        numerator, mass = 2 * q * t, q**2 + t**2 if self.square else q + t
        s = self.smooth
        if self.style == "paper":
            return (1 - (numerator + s) / (mass + s)).mean(1)
        if logits.ndim == 1:
            counts = torch.ones_like(p)
            sums = torch.stack([keep(x, valid).sum() for x in (numerator, mass, counts)])
            above, below, rows = reduce_with_gradient(sums)
            return torch.where(rows > 0, 1 - (above + s) / (below + s), above)
        if not self.square:
            mass = reduce_with_gradient(keep(mass, valid).sum(0))
        return (1 - (numerator + s) / (mass + s)).sum(1)
