# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Orthogonal projection loss: features of one class align, of different classes are orthogonal."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.pairs import make_pairs


class OrthogonalProjection(nn.Module):
    """``1 - mean cos(same class) + gamma * mean cos(different class)`` over pairs of the batch.

    Ranasinghe et al., "Orthogonal Projection Loss", arXiv 2103.14021. Beside cross-entropy, with
    weight 1. A batch without a pair of one class keeps the constant 1; one without rows that count
    is 0.

    Args:
        gamma: weight of the pairs of different classes.
        absolute: take |cos| of those, as the paper writes and its ImageNet code does; the authors'
            other code, and the default here, does not.

    Shapes: features ``(N, D)``, target ``(N,)``; one number for the batch of all ranks. With
    ref_features ``(M, D)`` and ref_target ``(M,)`` the pairs are those of a row and a reference.
    """

    scope = "pairs"
    contract = Contract(target=("label",), head="none")

    def __init__(self, gamma: float = 0.5, absolute: bool = False) -> None:
        super().__init__()
        self.gamma, self.absolute = gamma, absolute

    def forward(
        self,
        features: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        ref_features: Tensor | None = None,
        ref_target: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        pairs = make_pairs(
            features, target, valid, ref_features=ref_features, ref_target=ref_target
        )
        x = pairs.anchors.x
        cosine = x @ pairs.columns.x.t()
        same, different = pairs.masks(0, len(x))
        across = cosine.abs() if self.absolute else cosine
        # A pair within the batch is met from both ends; the authors count both too.
        loss = 1 - _mean(cosine, same) + self.gamma * _mean(across, different)
        counted = all_sum(pairs.anchors.valid.sum())
        return torch.where(counted > 0, loss, 0.0)


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean over all ranks where the mask is set; 0 where it never is. The 1e-6 is the authors'."""
    total = reduce_with_gradient(torch.where(mask, values, 0).sum())
    # In the dtype of the values: 1e-6 is lost in float32.
    return total / (all_sum(mask.sum()).to(values.dtype) + 1e-6)
