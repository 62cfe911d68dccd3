# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Focal loss: cross-entropy that looks away from rows it has already learned."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.class_weights import ClassWeights


class Focal(nn.Module):
    """``-alpha_y (1 - p_y)^gamma log p_y``.

    Lin et al., "Focal Loss for Dense Object Detection", arXiv 1708.02002.

    Args:
        gamma: focusing exponent, at least 0; 0 is cross-entropy.
        alpha: ``(C,)`` non-negative weights of the classes; the mean is over rows, not over alpha.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, gamma: float = 2.0, alpha: Sequence[float] | Tensor | None = None) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}.")
        self.gamma = gamma
        self.alpha = None if alpha is None else ClassWeights(alpha, "alpha")
        self.needs: tuple[str, ...] = () if alpha is None else ("target",)

    def forward(
        self, log_prob: Tensor, target: Tensor | None = None, logits: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        # 1 - p without cancellation; never 0, where a power below 1 has an infinite slope.
        miss = (-torch.expm1(log_prob)).clamp(min=torch.finfo(log_prob.dtype).tiny)
        loss = -miss.pow(self.gamma) * log_prob
        if self.alpha is None:
            return loss
        assert target is not None
        self.alpha.check(logits)  # where they are at hand: hidden states have none
        return self.alpha.of(target, loss) * loss
