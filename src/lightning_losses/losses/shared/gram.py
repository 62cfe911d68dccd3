# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Gaussian similarities of rows as logarithms, so that far rows are far and not log of 0."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.rows_math import LOWEST


def together(*tensors: Tensor, valid: Tensor | None) -> tuple[list[Tensor], Tensor]:
    """Rows ``(N, D)`` of all ranks, 0 where they do not count, and which of them do ``(N,)``."""
    if valid is None:
        valid = torch.ones(len(tensors[0]), dtype=torch.bool, device=tensors[0].device)
    rows = [x.flatten(1) if x.ndim > 1 else x[:, None] for x in tensors]
    kept = [gather_with_gradient(torch.where(valid[:, None], x, 0.0)) for x in rows]
    return kept, gather_with_gradient(valid)


def log_gram(x: Tensor, y: Tensor, counts: Tensor, sigma: float) -> Tensor:
    """``-|x_i - y_j|^2 / (2 sigma^2)`` ``(N, N)``; `LOWEST` for pairs that do not count."""
    if x.shape[1] != y.shape[1]:
        raise ValueError(
            f"estimate and reference must have one shape, got {x.shape[1]} and {y.shape[1]} "
            "numbers a row."
        )
    squared = (x[:, None] - y[None, :]).square().sum(-1)
    pairs = counts[:, None] & counts[None, :]
    return torch.where(pairs, -squared / (2 * sigma**2), LOWEST)
