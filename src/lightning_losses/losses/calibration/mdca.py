# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""MDCA: the mean probability of each class against how often it occurs in the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.correctness import sums


class MDCA(nn.Module):
    """``mean_k |mean_i p_ik - mean_i 1[y_i = k]|`` over the classes k and the rows i of the batch.

    Hebbalaguppe et al., "A Stitch in Time Saves Nine: A Train-Time Regularizing Loss for Improved
    Neural Network Calibration", arXiv 2203.13834. A term beside focal loss or cross-entropy, with
    weight 1. Means are those of the batch of all ranks: with fewer rows than classes they are
    mostly noise, and accumulating gradients is not a larger batch.

    Shapes: logits ``(N, C)``, target ``(N,)``; one number for the batch, a fraction.
    """

    scope = "batch"
    contract = Contract()

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        counts = torch.ones_like(logits[:, 0]) if valid is None else valid.to(logits.dtype)
        hit = torch.zeros_like(logits).scatter(1, (target * (counts > 0))[:, None], 1.0)
        many = counts[:, None].expand_as(hit)
        gap, rows = sums(logits.softmax(-1) - hit, many, counts=counts)
        mean: Tensor = (gap / rows.detach().clamp(min=1)).abs().mean()
        return mean
