# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Betti numbers of masks, and by how much those of a prediction are off.

In plain torch: pieces are found by union of neighbours until nothing changes, in a number of rounds
that grows with the logarithm of a mask's size; holes follow from the Euler number, which counts
pixels, neighbours and squares.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from lightning_losses.metrics.calibration.sum_metric import SumMetric


def betti_numbers(mask: Tensor, connectivity: int = 8) -> Tensor:
    """Pieces and holes of masks ``(B, H, W)``, as ``(B, 2)`` int64.

    Holes are pieces of the background that do not reach the border, under the other connectivity
    (4 for 8 and 8 for 4), as digital topology has it.

    Args:
        mask: bool or 0 and 1.
        connectivity: 8, pixels that touch at a corner are one piece, or 4, they are not.

    Raises:
        ValueError: another shape or connectivity.

    Examples:
        >>> betti_numbers(torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]]))  # one piece, one hole
        tensor([[1, 1]])
        >>> corners = torch.eye(2)[None]
        >>> betti_numbers(corners), betti_numbers(corners, connectivity=4)
        (tensor([[1, 0]]), tensor([[2, 0]]))
    """
    if mask.ndim != 3 or connectivity not in (4, 8):
        raise ValueError(
            "betti_numbers needs masks (B, H, W) and connectivity 4 or 8, got "
            f"{tuple(mask.shape)} and {connectivity}."
        )
    mask = mask > 0.5 if mask.is_floating_point() else mask.bool()
    pieces = _pieces(mask, connectivity)
    return torch.stack([pieces, pieces - _euler(mask, connectivity)], 1)


def betti_error(prediction: Tensor, target: Tensor, connectivity: int = 8) -> Tensor:
    """``|b_d(prediction) - b_d(target)|`` for d = 0, 1 of masks ``(B, H, W)``, as ``(B, 2)`` int64.

    Equal numbers do not mean matched features: a lost piece and a wrong one elsewhere cancel.

    Raises:
        ValueError: shapes differ or are not ``(B, H, W)``; another connectivity.

    Examples:
        >>> ring = torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]])
        >>> betti_error(torch.ones_like(ring), ring)  # one piece as it should, the hole is gone
        tensor([[0, 1]])
    """
    if prediction.shape != target.shape:
        raise ValueError(
            f"prediction {tuple(prediction.shape)} and target {tuple(target.shape)} must have one "
            "shape, (B, H, W)."
        )
    return (betti_numbers(prediction, connectivity) - betti_numbers(target, connectivity)).abs()


class BettiError(SumMetric):
    """Mean Betti error of masks over images or patches, streamed and over ranks.

    Published numbers differ in three choices, which can change the order of methods (arXiv
    2412.14619); state all three: whole images or patches, 8 or 4 neighbours, and which class is the
    foreground, which is what is passed as 1. Patches here tile the image, with a remainder at the
    right and lower border left out; papers that draw 64 x 64 patches at random get another number.
    Not differentiable: a measure beside `soft_cldice` or `skeleton_recall`, no loss.

    Args:
        connectivity: 8 or 4.
        patch: side of the patches; None for whole images.

    Raises:
        ValueError: another connectivity, or patches of less than one pixel.

    Examples:
        >>> ring = torch.tensor([[[1, 1, 1], [1, 0, 1], [1, 1, 1]]])
        >>> metric = BettiError()
        >>> metric.update(torch.ones_like(ring), ring)  # the hole was filled
        >>> {name: value.item() for name, value in metric.compute().items()}
        {'error_0': 0.0, 'error_1': 1.0, 'error': 1.0}
    """

    errors: Tensor
    count: Tensor

    def __init__(self, connectivity: int = 8, patch: int | None = None) -> None:
        super().__init__()
        if connectivity not in (4, 8) or (patch is not None and patch < 1):
            raise ValueError(
                f"BettiError needs connectivity 4 or 8 and patch at least 1, got {connectivity} "
                f"and {patch}."
            )
        self.connectivity, self.patch = connectivity, patch
        self.add_sums(errors=((2,), torch.int64), count=((), torch.int64))

    def update(self, prediction: Tensor, target: Tensor) -> None:
        """Add masks ``(B, H, W)``, bool or 0 and 1. Raises ValueError for other shapes."""
        if self.patch is not None:
            prediction, target = (_patches(mask, self.patch) for mask in (prediction, target))
        found = betti_error(prediction, target, self.connectivity)
        self.errors += found.sum(0)
        self.count += len(found)

    def compute(self) -> dict[str, Tensor]:
        """``error_0`` (pieces), ``error_1`` (holes) and ``error``, their sum; NaN of no image."""
        each = self.errors / torch.where(self.count > 0, self.count, torch.nan)
        return {"error_0": each[0], "error_1": each[1], "error": each.sum()}


def _patches(mask: Tensor, side: int) -> Tensor:
    if mask.ndim != 3 or min(mask.shape[1:]) < side:
        raise ValueError(f"patches of {side} need masks (B, H, W) of that size, got {mask.shape}.")
    tiles = mask.unfold(1, side, side).unfold(2, side, side)
    return tiles.reshape(-1, side, side)


def _pieces(mask: Tensor, connectivity: int) -> Tensor:
    """Number of connected components ``(B,)``."""
    height, width = mask.shape[1:]
    place = torch.arange(mask.numel(), device=mask.device).view(mask.shape)
    pairs = []
    for down, right in ((0, 1), (1, 0), (1, 1), (1, -1))[: 2 if connectivity == 4 else 4]:
        left = slice(max(-right, 0), width - max(right, 0))
        shifted = slice(max(right, 0), width + min(right, 0))
        a = (slice(None), slice(0, height - down), left)
        b = (slice(None), slice(down, None), shifted)
        both = mask[a] & mask[b]
        pairs.append(torch.stack([place[a][both], place[b][both]]))
    one, other = torch.cat(pairs, 1)
    label = place.flatten()
    while True:  # the smaller label wins; then every pixel takes the label of its label
        least = torch.minimum(label[one], label[other])
        after = label
        for ends in (one, other):
            # Also at the label's own pixel, so that whole pieces move at once.
            after = after.scatter_reduce(0, ends, least, "amin")
            after = after.scatter_reduce(0, label[ends], least, "amin")
        after = after[after]
        if torch.equal(after, label):
            break
        label = after
    roots = (label.view(mask.shape) == place) & mask
    return roots.flatten(1).sum(1)


def _euler(mask: Tensor, connectivity: int) -> Tensor:
    """Pieces minus holes ``(B,)``, of closed pixels (8) or of pixel centres (4)."""
    if connectivity == 4:
        pixel = mask
        across, down = mask[:, :, 1:] & mask[:, :, :-1], mask[:, 1:] & mask[:, :-1]
        square = across[:, 1:] & across[:, :-1]
        return _count(pixel) - _count(across) - _count(down) + _count(square)
    ringed = F.pad(mask, (1, 1, 1, 1))
    across, down = ringed[:, :, 1:] | ringed[:, :, :-1], ringed[:, 1:] | ringed[:, :-1]
    corner = across[:, 1:] | across[:, :-1]
    return _count(corner) - _count(across) - _count(down) + _count(mask)


def _count(mask: Tensor) -> Tensor:
    return mask.flatten(1).sum(1)
