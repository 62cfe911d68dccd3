# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Sums of overlap, for an image or for the batch, and the mean over what counts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.maps import sum_space
from lightning_losses.losses.shared.validation import check_length

Over = Literal["image", "batch"]
Reduction = Literal["mean", "sum", "none"]


def check_over(over: str) -> None:
    """Raise ValueError for anything but the two."""
    if over not in ("image", "batch"):
        raise ValueError(f"over must be 'image' or 'batch', got {over!r}.")


def check_reduction(reduction: str, over: str) -> None:
    """Raise ValueError for a reduction that there is not, or that ``over`` leaves nothing for."""
    if reduction not in get_args(Reduction):
        raise ValueError(f"reduction must be 'mean', 'sum' or 'none', got {reduction!r}.")
    if reduction != "mean" and over == "batch":
        raise ValueError(
            f"reduction={reduction!r} is over images, and over='batch' makes one set of them: "
            "write over: image."
        )


def reduced(
    score: Callable[..., Tensor],
    parts: tuple[Tensor, ...],
    counts: Tensor,
    over: Over,
    reduction: Reduction = "mean",
    class_weight: tuple[float, ...] | None = None,
) -> Tensor:
    """Mean over images and classes of ``score(*sums)``, 0-dim, the same on every rank.

    Args:
        score: from the sums of the parts to the loss of an image or of the batch.
        parts: maps ``(B, C, ...)`` to be summed over pixels, and over images for ``batch``.
        counts: ``(B, 1, ...)`` pixels that count; images without one are left out.
        over: what makes a set.
        reduction: ``mean``, ``sum`` over images and classes, or ``none``: ``(B,)``, the mean over
            the classes of each image, 0 for images left out.
        class_weight: multiplies the score of each class of the parts.
    """
    sums = torch.stack([sum_space(part) for part in parts])  # (parts, B, C)
    if over == "batch":
        sums = reduce_with_gradient(sums.sum(1))
    values = score(*sums)
    if class_weight is not None:
        check_length("class_weight", len(class_weight), values.shape[-1])
        values = values * constant(class_weight, values)
    if over == "batch":
        return torch.where(all_sum(counts.sum()) > 0, values.mean(), 0.0)
    image = counts.flatten(1).any(1)
    if reduction == "none":
        return torch.where(image, values.mean(1), 0.0)
    if reduction == "sum":
        return reduce_with_gradient(torch.where(image, values.sum(1), 0.0).sum())
    total = torch.where(image, values.mean(1), 0.0).sum()
    return reduce_with_gradient(total) / all_sum(image.sum()).clamp(min=1)
