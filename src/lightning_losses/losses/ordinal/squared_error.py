# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Squared error of real-valued outputs of any shape; the regression of flow matching."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.estimates import error_rows


class SquaredError(nn.Module):
    """``|estimate - reference|^2`` of a sample, summed over its entries.

    With the velocity of a path as reference this is conditional flow matching: Lipman et al., "Flow
    Matching for Generative Modeling", arXiv 2210.02747.

    Shapes: estimate and reference ``(N, ...)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError if the shapes differ."""
        return error_rows(estimate, reference, valid).square().sum(1)
