# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Jensen-Shannon loss: between cross-entropy and MAE, bounded."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST


class JensenShannon(nn.Module):
    """``Z (w KL(e_y || m) + (1 - w) KL(p || m))`` with ``m = w e_y + (1 - w) p``.

    ``Z = -1 / ((1 - w) log(1 - w))``. Towards w = 0 it is cross-entropy, towards w = 1 the mean
    absolute error ``1 - p_y``. Englesson and Azizpour, arXiv 2105.04522. It depends on p_y alone:
    away from y, m is a multiple of p.

    Args:
        label_weight: w, in (0, 1).

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, label_weight: float = 0.5) -> None:
        super().__init__()
        if not 0 < label_weight < 1:
            raise ValueError(f"label_weight must be in (0, 1), got {label_weight}.")
        self.label_weight = label_weight

    def forward(self, log_prob: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        w, rest = self.label_weight, 1 - self.label_weight
        log_rest = math.log1p(-w)
        log_prob = log_prob.clamp(min=LOWEST)  # p log p is 0 where p is
        p = log_prob.exp()
        log_m = torch.log1p(rest * torch.expm1(log_prob))  # w + (1 - w) p = 1 - (1 - w)(1 - p)
        from_label = -log_m
        from_prediction = log_rest * torch.expm1(log_prob) + p * (log_prob - log_m)
        return (w * from_label + rest * from_prediction) / (-rest * log_rest)
