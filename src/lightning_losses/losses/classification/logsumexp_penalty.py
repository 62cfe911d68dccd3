# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The z-loss of PaLM: keeps the softmax denominator near 1."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract


class LogsumexpPenalty(nn.Module):
    """``(log sum_j exp z_j)^2``; weighted by 1e-4 beside cross-entropy.

    Chowdhery et al., "PaLM", arXiv 2204.02311, section 5.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract(target=("none",))

    def forward(self, logsumexp: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        return logsumexp.square()
