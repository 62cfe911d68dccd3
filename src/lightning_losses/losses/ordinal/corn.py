# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""CORN: ordered classes as a chain of questions, each asked only where the one before was a yes."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.constant import exact
from lightning_losses.losses.shared.ordinal_levels import levels


class Corn(nn.Module):
    """Binary cross-entropies of ``P(y > k | y > k-1)``, over the rows with ``y >= k``.

    Shi, Cao and Raschka, "Deep Neural Networks for Rank-Consistent Ordinal Regression Based On
    Conditional Probabilities", arXiv 2111.08851. Rank consistent whatever the logits are:
    P(y > k) is the product of sigmoids up to k, see `corn_probabilities`.

    Args:
        num_classes: K; the logits are K - 1.
        divide_by: ``pairs`` of rows and questions asked, as the authors (their mean, in a batch);
            ``classes`` divides each row's sum by K and takes the mean over rows, as the package
            coral-ordinal does. Same minimum, another scale.

    Shapes: logits ``(N, K-1)``, target ``(N,)`` in 0 .. K-1; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("level",), head="sigmoid")

    def __init__(
        self, num_classes: int | None = None, divide_by: Literal["pairs", "classes"] = "pairs"
    ) -> None:
        super().__init__()
        if divide_by not in ("pairs", "classes"):
            raise ValueError(f"divide_by must be 'pairs' or 'classes', got {divide_by!r}.")
        self.num_classes, self.divide_by = num_classes, divide_by

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``: the sum over the questions that were asked."""
        tasks = logits.shape[1]
        if self.num_classes != tasks + 1:
            raise ValueError(
                f"corn needs num_classes, one more than there are logits ({tasks}), got "
                f"{self.num_classes}: write loss.corn.num_classes={tasks + 1}."
            )
        above = levels(target, tasks)
        losses = F.softplus(torch.where(above, -logits, logits))
        asked = target[:, None] >= torch.arange(tasks, device=target.device)
        total = torch.where(asked, losses, 0.0).sum(1)
        return total / self.num_classes if self.divide_by == "classes" else total

    def row_divisors(self, target: Tensor | None) -> Tensor | None:
        """How many questions each row was asked."""
        if self.divide_by == "classes" or target is None or self.num_classes is None:
            return None
        return (target + 1).clamp(max=self.num_classes - 1).to(exact(target.device))


def corn_probabilities(logits: Tensor) -> Tensor:
    """P(y > k) ``(N, K-1)`` of CORN logits; the predicted class is how many are above one half."""
    return torch.cumprod(logits.sigmoid(), dim=-1)
