# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""CORAL: ordered classes as K - 1 questions "is it above k?", all asked of every row."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.ordinal_levels import levels
from lightning_losses.losses.shared.validation import check_length


class Coral(nn.Module):
    """``-sum_k w_k log sigmoid(+-z_k)`` with the sign of ``y > k``.

    Cao, Mirjalili and Raschka, "Rank consistent ordinal regression for neural networks", arXiv
    1901.07884. Logit k is that of P(y > k). Consistent ranks need logits that share one weight
    vector and differ by bias only: a ``Linear(D, 1)`` plus K - 1 biases.

    Args:
        level_weight: ``(K-1,)`` importance of the questions; all 1 if None.

    Shapes: logits ``(N, K-1)``, target ``(N,)`` in 0 .. K-1; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("level",), head="sigmoid")

    def __init__(self, level_weight: Sequence[float] | None = None) -> None:
        super().__init__()
        self.level_weight = None if level_weight is None else tuple(float(w) for w in level_weight)

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        above = levels(target, logits.shape[1])
        losses = F.softplus(torch.where(above, -logits, logits))
        if self.level_weight is not None:
            check_length("level_weight", len(self.level_weight), losses.shape[1], "levels")
            losses = losses * constant(self.level_weight, losses)
        return losses.sum(1)
