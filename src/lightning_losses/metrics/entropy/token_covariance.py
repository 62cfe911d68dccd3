# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Covariance and difference of two numbers a row, over rows that lie on several ranks."""

from __future__ import annotations

import torch
from torch import Tensor


def moments(a: Tensor, b: Tensor, use: Tensor) -> Tensor:
    """``(4,)``: rows, mean of a, mean of b, sum of products about the means; of the rows in use.

    Args:
        a: ``(N,)``.
        b: ``(N,)``.
        use: ``(N,)`` bool.
    """
    count = use.sum().to(b.dtype)
    both = torch.where(use, torch.stack([a.to(b.dtype), b]), 0)
    means = both.sum(1) / count.clamp(min=1)
    products = torch.where(use, (both - means[:, None]).prod(0), 0).sum()
    return torch.cat([count[None], means, products[None]])


def pooled_covariance(parts: Tensor) -> Tensor:
    """The covariance (divided by the number of rows) of all rows of ``(R, 4)`` `moments`.

    About the means of all rows, so that large means cost no digits; 0 without rows.
    """
    count, means, products = parts[:, 0], parts[:, 1:3], parts[:, 3]
    total = count.sum().clamp(min=1)
    about = means - (count[:, None] * means).sum(0) / total
    return (products.sum() + (count * about.prod(1)).sum()) / total


def pooled_difference(parts: Tensor) -> Tensor:
    """Mean of a minus mean of b over all rows of ``(R, 4)`` `moments`; 0 without rows."""
    count, means = parts[:, 0], parts[:, 1:3]
    return (count * (means[:, 0] - means[:, 1])).sum() / count.sum().clamp(min=1)
