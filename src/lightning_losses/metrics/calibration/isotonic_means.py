# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Isotonic regression as one formula over tensors: no loop, no wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.fine_bins import running_sum


def isotonic_means(total: Tensor, weight: Tensor) -> Tensor:
    """Best non-decreasing means of K ordered groups, `(..., K)`: `max_{j<=i} min_{k>=i} m(j..k)`.

    `m(j..k)` is the mean of the groups j to k. This is the least-squares fit that pooling adjacent
    violators finds (Barlow et al. 1972), as a formula; it takes K^2 numbers, so K up to a few
    thousand. A group without weight takes no part, and its own value means nothing.

    Args:
        total: `(..., K)`, sum of the values of each group.
        weight: `(..., K)`, how much each group counts, at least 0.
    """
    size = total.shape[-1]
    inside = torch.ones(size, size, dtype=torch.bool, device=total.device).triu()
    sums, weights = (
        running_sum(torch.where(inside, part[..., None, :].to(total.dtype), 0))
        for part in (total, weight)
    )  # (..., j, k): over the groups j to k
    mean = torch.where(weights > 0, sums / torch.where(weights > 0, weights, 1), torch.inf)
    least = mean.flip(-1).cummin(-1).values.flip(-1)  # over k >= i, at (j, i)
    found = torch.where(inside, least, -torch.inf).amax(-2)
    later = running_sum(weight.flip(-1).to(total.dtype)).flip(-1) > 0
    return torch.where(later, found, 0)  # the last groups, if they have no weight
