# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Sums of overlap, for an image or for the batch, and the mean over what counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.maps import sum_space

Over = Literal["image", "batch"]


def check_over(over: str) -> None:
    """Raise ValueError for anything but the two."""
    if over not in ("image", "batch"):
        raise ValueError(f"over must be 'image' or 'batch', got {over!r}.")


def mean_of_scores(
    score: Callable[..., Tensor], parts: tuple[Tensor, ...], counts: Tensor, over: Over
) -> Tensor:
    """Mean over images and classes of ``score(*sums)``, 0-dim, the same on every rank.

    Args:
        score: from the sums of the parts to the loss of an image or of the batch, 0 where all
            sums are 0.
        parts: maps ``(B, C, ...)`` to be summed over pixels, and over images for ``batch``.
        counts: ``(B, 1, ...)`` pixels that count; images without one are left out.
    """
    sums = torch.stack([sum_space(part) for part in parts])  # (parts, B, C)
    if over == "batch":
        return score(*reduce_with_gradient(sums.sum(1))).mean()
    image = counts.flatten(1).any(1)
    values = torch.where(image, score(*sums).mean(1), 0.0).sum()
    return reduce_with_gradient(values) / all_sum(image.sum()).clamp(min=1)
