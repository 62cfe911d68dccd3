# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Barlow Twins: the cross-correlation of two views' features is the identity."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views


class BarlowTwins(nn.Module):
    """``scale (sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2)``, C the correlation of views.

    Zbontar et al., "Barlow Twins", arXiv 2103.03230. Every feature is standardised over the rows of
    all ranks (biased variance, eps 1e-5, a batch norm without weights), and C is the mean over all
    rows of the outer product of the views: statistics of each rank alone give another gradient.

    Args:
        redundancy: weight of the off-diagonal; the authors' code has 0.0051.
        scale: multiplies the loss; solo-learn has 0.024 or 0.1.
        eps: is added to the variance.

    Shapes: features and other_features ``(B, D)``, or features ``(B, 2, D)``; one number for the
    batch of all ranks, 0 for fewer than two rows. Memory D x D.
    """

    scope = "batch"
    contract = TWO_VIEWS

    def __init__(self, redundancy: float = 0.005, scale: float = 1.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.redundancy, self.scale, self.eps = redundancy, scale, eps

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        a, b = two_views(features, other_features)
        if valid is None:
            valid, kept = torch.ones(len(a), dtype=torch.bool, device=a.device), None
        else:
            kept = valid[:, None]
            a, b = torch.where(kept, a, 0), torch.where(kept, b, 0)
        count = all_sum(valid.sum().to(a.dtype))
        each = count.clamp(min=1)
        mean = reduce_with_gradient(torch.stack([a.sum(0), b.sum(0)])) / each
        a, b = a - mean[0], b - mean[1]
        if kept is not None:
            a, b = torch.where(kept, a, 0), torch.where(kept, b, 0)
        variance = reduce_with_gradient(torch.stack([a.square().sum(0), b.square().sum(0)])) / each
        inverse = (variance + self.eps).rsqrt()
        correlation = reduce_with_gradient(a.t() @ b) / each * inverse[0][:, None] * inverse[1]
        diagonal = correlation.diagonal()
        off = correlation.square().sum() - diagonal.square().sum()
        loss = (1 - diagonal).square().sum() + self.redundancy * off
        # One row has no correlation: all of it is its own mean.
        return self.scale * torch.where(count > 1, loss, correlation.sum() * 0)
