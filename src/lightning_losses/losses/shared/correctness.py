# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which rows were right, and sums over the rows that count of all ranks."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.distributed import reduce_with_gradient


def right_rows(
    prediction: Tensor, target: Tensor, valid: Tensor | None, like: Tensor
) -> tuple[Tensor, Tensor]:
    """``(right, counts)``, each 1 or 0 a row ``(N,)`` in the dtype of ``like``, without gradient.

    A row that does not count is not right either.
    """
    right = prediction == target
    if valid is None:
        return right.to(like.dtype), torch.ones_like(like)
    return (right & valid).to(like.dtype), valid.to(like.dtype)


def sums(*rows: Tensor, counts: Tensor) -> Tensor:
    """The sum of each of ``(N,)`` or ``(N, K)`` over the rows that count, of all ranks, stacked."""
    kept = counts > 0
    parts = [torch.where(kept if r.ndim == 1 else kept[:, None], r, 0).sum(0) for r in rows]
    return reduce_with_gradient(torch.stack(parts))


def root(value: Tensor) -> Tensor:
    """The square root; 0 and no gradient where a value is not positive, where the slope is none."""
    tiny = torch.finfo(value.dtype).tiny
    return torch.where(value > tiny, value.clamp(min=tiny).sqrt(), 0.0 * value)
