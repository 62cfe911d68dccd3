# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Z-loss of de Brebisson and Vincent: a margin on standardised logits."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract


class SphericalZ(nn.Module):
    """``softplus(a (b - z_y)) / a`` with ``z = (f - mean f) / std f`` over the classes of a row.

    "The Z-loss: a shift and scale invariant classification loss belonging to the spherical family",
    arXiv 1604.08859. No probability model: only the order of the classes means something. z_y is
    at most ``sqrt(C - 1)``, so b should lie below that. A row of equal logits has z = 0.

    Args:
        a: slope, positive.
        b: the z_y to reach, in standard deviations.

    Shapes: logits ``(N, C)`` whole and finite, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}.")
        self.a, self.b = a, b

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # E[f^2] - mean^2 cancels in float32 from |f| = 1000 on, and so does the mean itself.
        near = logits - logits.detach().amax(1, keepdim=True)
        centred = near - near.mean(1, keepdim=True)
        variance = centred.square().mean(1)
        std = variance.where(variance > 0, 1.0).sqrt()  # equal logits: a gradient of order 1
        z = centred.gather(1, target[:, None]).squeeze(1) / std
        return -F.logsigmoid(self.a * (z - self.b)) / self.a
