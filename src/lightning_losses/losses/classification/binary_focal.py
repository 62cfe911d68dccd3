# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Binary focal loss: binary cross-entropy that looks away from easy examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.classification.binary_cross_entropy import (
    OverLabels,
    binary_rows,
    check_over_labels,
    known_share,
)


class BinaryFocal(nn.Module):
    """``-alpha_t (1 - p_t)^gamma log p_t`` with p_t the probability of the label; mean over labels.

    Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002.

    Args:
        gamma: focusing exponent, at least 0; 0 is binary cross-entropy.
        alpha: weight of positives in [0, 1], 1 - alpha that of negatives; None weighs neither.
        ignore_index: labels of this value are not known; as of `BinaryCrossEntropy`.
        over_labels: a row's value is the ``mean`` of its labels or their ``sum``.

    Shapes: as `BinaryCrossEntropy`.
    """

    scope = "rows"
    contract = Contract(target=("binary", "class"), head="sigmoid")

    def __init__(
        self,
        gamma: float = 2.0,
        alpha: float | None = None,
        ignore_index: int | None = None,
        over_labels: OverLabels = "mean",
    ) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}.")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1] or None, got {alpha}.")
        check_over_labels(over_labels)
        self.gamma, self.alpha = gamma, alpha
        self.ignore_index, self.over_labels = ignore_index, over_labels

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError for targets outside [0, 1], on a CPU."""
        rows = binary_rows(logits, target, valid, self.ignore_index)
        z, t = rows.z, rows.t
        # 1 - p_t without cancellation; never 0, where a power below 1 has an infinite slope.
        miss = torch.sigmoid(z) * (1 - t) + torch.sigmoid(-z) * t
        weight = miss.clamp(min=torch.finfo(z.dtype).tiny).pow(self.gamma)
        if self.alpha is not None:
            weight = weight * (self.alpha * t + (1 - self.alpha) * (1 - t))
        return rows.reduced(weight * rows.losses(), self.over_labels)

    def row_divisors(self, target: Tensor | None) -> Tensor | None:
        """As of `BinaryCrossEntropy`."""
        return known_share(target, self.ignore_index)
