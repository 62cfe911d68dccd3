# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Brier score: the squared distance between prediction and target, a proper scoring rule."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract


class Brier(nn.Module):
    """``sum_j (p_j - 1[j = y])^2 = 1 - 2 p_y + sum_j p_j^2``, between 0 and 2.

    Brier, "Verification of forecasts expressed in terms of probability", 1950. Bounded, so one
    wrong label cannot dominate; flat where the prediction is certain and wrong.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def forward(self, log_prob: Tensor, collision: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        return 1 - 2 * log_prob.exp() + collision
