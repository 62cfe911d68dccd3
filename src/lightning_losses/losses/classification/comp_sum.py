# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Comp-sum losses: one parameter from the sum-exponential loss over cross-entropy to MAE."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class CompSum(nn.Module):
    """``(p_y^(tau-1) - 1) / (1 - tau)``, and ``-log p_y`` at tau = 1.

    tau = 0 is the sum-exponential loss ``1/p_y - 1``, tau = 1 + q generalised cross-entropy (GCE),
    tau = 2 the mean absolute error ``1 - p_y``, which tolerates label noise. Mao, Mohri and Zhong,
    "Cross-Entropy Loss Functions: Theoretical Analysis and Applications", arXiv 2304.07288; GCE:
    Zhang and Sabuncu, arXiv 1805.07836.

    Args:
        tau: at least 0. Below 1 the loss grows like exp of the margin; it is held constant where
            it would overflow float32.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, tau: float = 1.0) -> None:
        super().__init__()
        if not tau >= 0:
            raise ValueError(f"tau must be at least 0, got {tau}.")
        self.tau = tau

    def forward(self, log_prob: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        power = self.tau - 1
        if abs(power) < 1e-6:
            return -log_prob
        if power < 0:
            log_prob = log_prob.clamp(min=80 / power)  # exp(80) = 5e34
        # expm1, not p^power - 1: p near 1 would cancel.
        return -torch.expm1(power * log_prob) / power
