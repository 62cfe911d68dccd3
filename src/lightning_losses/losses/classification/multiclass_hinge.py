# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Multi-class hinge losses: those of Crammer and Singer, Weston and Watkins, and the L2-SVM."""

from __future__ import annotations

from typing import Literal

from torch import Tensor, nn
from torch.nn.functional import relu

from lightning_losses.contract import Contract


class MulticlassHinge(nn.Module):
    """Hinges over the classes, ``max(0, margin - what should be large)^power``.

    Either of pairs, ``margin + f_k - f_y`` for each k that is not y, or of each class against the
    rest, ``margin - t_k f_k`` with t_y = 1 and t_k = -1. Crammer and Singer, JMLR 2001: pairs, max.
    Weston and Watkins, 1999: pairs, sum (torch's MultiMarginLoss and the LDR code: mean). L2-SVM
    (Tang, arXiv 1306.0239): one_vs_rest, sum, power 2, beside weight decay.

    Args:
        against: ``pairs`` or ``one_vs_rest``.
        over_classes: ``max``, ``sum``, or ``mean`` (over all C classes, the target included).
        margin: at least 0, in logits.
        power: 1 or 2.

    Shapes: logits ``(N, C)`` whole, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(
        self,
        against: Literal["pairs", "one_vs_rest"] = "pairs",
        over_classes: Literal["max", "sum", "mean"] = "max",
        margin: float = 1.0,
        power: int = 1,
    ) -> None:
        super().__init__()
        if against not in ("pairs", "one_vs_rest"):
            raise ValueError(f"against must be 'pairs' or 'one_vs_rest', got {against!r}.")
        if over_classes not in ("max", "sum", "mean"):
            raise ValueError(f"over_classes must be 'max', 'sum' or 'mean', got {over_classes!r}.")
        if power not in (1, 2) or not margin >= 0:
            raise ValueError(f"power must be 1 or 2 and margin at least 0, got {power}, {margin}.")
        self.against, self.over_classes = against, over_classes
        self.margin, self.power = margin, power

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        y = target[:, None]
        if self.against == "pairs":
            # The target's own entry is 0: it adds nothing, and is the maximum of no hinge at all.
            raw = (logits - logits.gather(1, y) + self.margin).scatter(1, y, 0.0)
        else:
            raw = self.margin + logits.scatter(1, y, -logits.gather(1, y))
        hinge = relu(raw) if self.power == 1 else relu(raw).square()
        if self.over_classes == "max":
            return hinge.amax(1)
        return hinge.sum(1) if self.over_classes == "sum" else hinge.mean(1)
