# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Orthogonal projection loss: features of one class align, of different classes are orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.rows_math import unit
from lightning_losses.losses.shared.validation import same_rows


class OrthogonalProjection(nn.Module):
    """``1 - mean cos(same class) + gamma * mean cos(different class)`` over pairs of the batch.

    Ranasinghe et al., "Orthogonal Projection Loss", arXiv 2103.14021. Beside cross-entropy, with
    weight 1. A batch without a pair of one class keeps the constant 1; one without rows that count
    is 0.

    Args:
        gamma: weight of the pairs of different classes.
        absolute: take |cos| of those, as the paper writes and its ImageNet code does; the authors'
            other code, and the default here, does not.

    Shapes: features ``(N, D)``, target ``(N,)``; one number for the batch of all ranks.
    """

    scope = "pairs"
    contract = Contract(target=("label",), head="none")

    def __init__(self, gamma: float = 0.5, absolute: bool = False) -> None:
        super().__init__()
        self.gamma, self.absolute = gamma, absolute

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(features=features, target=target)
        if valid is None:
            valid = torch.ones_like(target, dtype=torch.bool)
        # By where, before the product: 0 times inf is NaN.
        x = gather_with_gradient(unit(torch.where(valid[:, None], features, 0)))
        y, counts = gather_with_gradient(target), gather_with_gradient(valid)
        pairs = counts[:, None] & counts[None, :]
        pairs = pairs.triu(1)  # each pair once; the diagonal is no pair
        cosine = x @ x.t()
        same = y[:, None] == y[None, :]
        across = cosine.abs() if self.absolute else cosine
        loss = 1 - _mean(cosine, pairs & same) + self.gamma * _mean(across, pairs & ~same)
        return torch.where(counts.any(), loss, 0.0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean where the mask is set; 0 where it never is.

    The authors count each pair twice and add 1e-6 to the count: half of it to half the count.
    """
    count = mask.sum().to(values.dtype)  # in the dtype of the values: 1e-6 is lost in float32
    return torch.where(mask, values, 0).sum() / (count + 0.5e-6)
