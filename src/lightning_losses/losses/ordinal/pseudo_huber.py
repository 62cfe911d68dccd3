# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Pseudo-Huber loss: squared near zero, a length far away, smooth between."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.estimates import error_rows


class PseudoHuber(nn.Module):
    """``sqrt(|d|^2 + c^2) - c`` of the whole difference of a sample, not of each entry.

    The metric of Song and Dhariwal, "Improved Techniques for Training Consistency Models", arXiv
    2310.14189.

    Args:
        c: where squares become lengths; 0.00054 sqrt(D) if None, as in that paper.

    Shapes: estimate and reference ``(N, ...)``, D entries a sample; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def __init__(self, c: float | None = None) -> None:
        super().__init__()
        if c is not None and not c > 0:
            raise ValueError(f"c must be positive, got {c}.")
        self.c = c

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``."""
        error = error_rows(estimate, reference, valid)
        c = 0.00054 * max(error.shape[1], 1) ** 0.5 if self.c is None else self.c
        squared = error.square().sum(1)
        # |d|^2 / (sqrt(|d|^2 + c^2) + c): the difference would cancel for small d.
        return squared / ((squared + c**2).sqrt() + c)
