# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy bonus: rewards predictions that stay open."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract


class EntropyBonus(nn.Module):
    """``-H(p)``, minus the entropy of the prediction in nats; its weight is the coefficient.

    The confidence penalty of Pereyra et al., arXiv 1701.06548, and the entropy term of policy
    gradients (Mnih et al., arXiv 1602.01783). The value is negative: more entropy, less loss.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract(target=("none",))

    def forward(self, entropy: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        return -entropy
