# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""SLR: like entropy minimisation, with a gradient that does not fade for sure predictions."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST


class SoftLikelihoodRatio(nn.Module):
    """``-sum p log(p / (1 - p) + eps)`` of each row, with every p at most ``clip``.

    Mummadi et al., "Test-Time Adaptation to Distribution Shift by Confidence Maximization and Input
    Transformation", arXiv 2106.14999. A row whose largest p is above the clip gets gradient through
    the other classes alone. The value may be negative.

    Args:
        clip: the largest p, in (0, 1).
        eps: within the logarithm, positive.

    Shapes: logits ``(N, C)``; per-row values ``(N,)`` in nats.

    Raises:
        ValueError: settings out of range.
    """

    scope = "rows"
    contract = Contract(target=("none",))

    def __init__(self, clip: float = 0.99, eps: float = 1e-5) -> None:
        super().__init__()
        if not (0 < clip < 1 and eps > 0):
            raise ValueError(
                f"clip must be in (0, 1) and eps positive, got {clip} and {eps}; write 0.99, 1e-5."
            )
        self.clip, self.eps = clip, eps

    def forward(self, logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        p = logits.clamp(min=LOWEST).softmax(1).clamp(max=self.clip)
        return -(p * (p / (1 - p) + self.eps).log()).sum(1)
