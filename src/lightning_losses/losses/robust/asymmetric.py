# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Asymmetric losses: bounded functions of p_y that clean labels dominate."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class AsymmetricGCE(nn.Module):
    """AGCE, ``((a + 1)^q - (a + p_y)^q) / q``.

    Zhou et al., "Asymmetric Loss Functions for Learning with Noisy Labels", arXiv 2106.03110.
    a = 0 is generalised cross-entropy.

    Args:
        a: at least 0.
        q: positive.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, a: float = 1.0, q: float = 2.0) -> None:
        super().__init__()
        if not (a >= 0 and q > 0):
            raise ValueError(f"a must be at least 0 and q positive, got {a} and {q}.")
        self.a, self.q = a, q

    def forward(self, log_prob: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # Never 0, where a power below 1 has an infinite slope.
        x = (self.a + log_prob.exp()).clamp(min=torch.finfo(log_prob.dtype).tiny)
        loss: Tensor = ((self.a + 1) ** self.q - x.pow(self.q)) / self.q
        return loss


class AsymmetricUnhinged(nn.Module):
    """AUL, ``((a - p_y)^q - (a - 1)^q) / q``.

    Same paper, arXiv 2106.03110. q = 1 is MAE.

    Args:
        a: at least 1.
        q: positive.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, a: float = 1.5, q: float = 0.9) -> None:
        super().__init__()
        if not (a >= 1 and q > 0):
            raise ValueError(f"a must be at least 1 and q positive, got {a} and {q}.")
        self.a, self.q = a, q

    def forward(self, log_prob: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # a - p as (a - 1) + (1 - p), the latter without cancellation; never 0, as above.
        x = (self.a - 1) - torch.expm1(log_prob)
        x = x.clamp(min=torch.finfo(log_prob.dtype).tiny)
        loss: Tensor = (x.pow(self.q) - (self.a - 1) ** self.q) / self.q
        return loss
