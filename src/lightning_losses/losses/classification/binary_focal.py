# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Binary focal loss: binary cross-entropy that looks away from easy examples."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.classification.binary_cross_entropy import (
    BinaryCrossEntropy,
    binary_rows,
)


class BinaryFocal(nn.Module):
    """``-alpha_t (1 - p_t)^gamma log p_t`` with p_t the probability of the label; mean over labels.

    Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002.

    Args:
        gamma: focusing exponent, at least 0; 0 is binary cross-entropy.
        alpha: weight of positives in [0, 1], 1 - alpha that of negatives; None weighs neither.

    Shapes: as `BinaryCrossEntropy`.
    """

    scope = "rows"
    contract = Contract(target=("binary", "class"), head="sigmoid")
    class_target = False

    def __init__(self, gamma: float = 2.0, alpha: float | None = None) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}.")
        if alpha is not None and not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1] or None, got {alpha}.")
        self.gamma, self.alpha = gamma, alpha
        self.cross_entropy = BinaryCrossEntropy()

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError for targets outside [0, 1], on a CPU."""
        z, t = binary_rows(logits, target, valid)
        # 1 - p_t without cancellation; never 0, where a power below 1 has an infinite slope.
        miss = torch.sigmoid(z) * (1 - t) + torch.sigmoid(-z) * t
        weight = miss.clamp(min=torch.finfo(z.dtype).tiny).pow(self.gamma)
        if self.alpha is not None:
            weight = weight * (self.alpha * t + (1 - self.alpha) * (1 - t))
        flat: Tensor = self.cross_entropy(z.reshape(-1), t.reshape(-1))
        return (weight * flat.reshape(z.shape)).mean(1)
