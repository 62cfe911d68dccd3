# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Pinball loss: learns quantiles; over symmetric levels it is the weighted interval score."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.constant import constant


class Pinball(nn.Module):
    """Mean over levels of ``max(tau e, (tau - 1) e)`` with ``e = target - quantile``.

    Koenker and Bassett, "Regression Quantiles" (1978). The weighted interval score of Bracher et
    al., arXiv 2005.12881, of K central intervals and the median is twice this over their 2K + 1
    quantile levels, whatever the order in which the quantiles were predicted.

    Args:
        levels: taus in (0, 1), one a predicted quantile.
        factor: multiplies; 2 for the weighted interval score.

    Shapes: quantiles ``(N, Q)``, target ``(N,)`` real; per-row values ``(N,)`` in its unit.
    """

    scope = "rows"
    contract = Contract(target=("real",), head="none")

    def __init__(self, levels: Sequence[float] = (0.1, 0.5, 0.9), factor: float = 1.0) -> None:
        super().__init__()
        if not len(levels) or not all(0 < level < 1 for level in levels):
            raise ValueError(f"levels must be quantile levels in (0, 1), got {list(levels)}.")
        self.levels = tuple(float(level) for level in levels)
        self.factor = factor

    def forward(self, quantiles: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``."""
        if quantiles.ndim == 1:
            quantiles = quantiles[:, None]
        if quantiles.shape[1] != len(self.levels):
            raise ValueError(
                f"quantiles {tuple(quantiles.shape)} must have a column for each of the "
                f"{len(self.levels)} levels."
            )
        if target.ndim != 1:
            raise ValueError(
                f"target must be real numbers (N,), got {tuple(target.shape)}: write "
                "target.squeeze(1) for (N, 1)."
            )
        if valid is not None:  # inf - inf is NaN
            target = torch.where(valid, target, 0)
        error = target.to(quantiles.dtype)[:, None] - quantiles
        levels = constant(self.levels, error)
        return self.factor * torch.maximum(levels * error, (levels - 1) * error).mean(1)
