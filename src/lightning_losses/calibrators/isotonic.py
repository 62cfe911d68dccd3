# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Isotonic regression: the best non-decreasing map of each class's probability."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.calibrators.calibrator import Calibrator

MOST_CLASSES = 100


def pool_adjacent_violators(score: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
    """Least-squares non-decreasing fit of `value` on `score`, both `(N,)`: knots `(x, y)`, `(K,)`.

    Equal scores are averaged first. Between knots the fit is linear, so of a constant block only
    the ends are kept. O(N log N) (Ayer et al. 1955, doi 10.1214/aoms/1177728423).

    Raises:
        ValueError: no rows.
    """
    if not len(score):
        raise ValueError("pool_adjacent_violators needs at least one row, found none")
    x, place, count = torch.unique(score.double(), return_inverse=True, return_counts=True)
    total = torch.zeros_like(x).index_add(0, place, value.double())
    blocks: list[tuple[float, int, int, int]] = []  # sum, rows, first and last score
    for index, (sum_, rows) in enumerate(zip(total.tolist(), count.tolist(), strict=True)):
        block = (sum_, rows, index, index)
        while blocks and blocks[-1][0] * block[1] >= block[0] * blocks[-1][1]:
            before = blocks.pop()
            block = (before[0] + block[0], before[1] + block[1], before[2], block[3])
        blocks.append(block)
    ends, heights = [], []
    for sum_, rows, first, last in blocks:
        ends += [first] if first == last else [first, last]
        heights += [sum_ / rows] * (1 if first == last else 2)
    return x[torch.tensor(ends, device=x.device)], x.new_tensor(heights)


def interpolate(score: Tensor, x: Tensor, y: Tensor) -> Tensor:
    """The piecewise linear function through the knots `(x, y)`, constant beyond them."""
    right = torch.searchsorted(x.contiguous(), score.contiguous()).clamp(1, max(len(x) - 1, 1))
    right = right.clamp(max=len(x) - 1)
    left = (right - 1).clamp(min=0)
    width = (x[right] - x[left]).clamp(min=torch.finfo(x.dtype).tiny)
    share = ((score - x[left]) / width).clamp(0, 1)
    return y[left] + share * (y[right] - y[left])


class Isotonic(Calibrator):
    """One non-decreasing map a class, of its probability against "it is this class"; then rows sum
    to 1 again by division (Zadrozny and Elkan 2002, doi 10.1145/775047.775151).

    Can change which class is largest. A class that was possible before keeps at least the chance
    `1 / (2 N)` of half a row, for no N rows prove that it never happens; a row that is mapped to 0
    in every class keeps its softmax. Needs many rows, a thousand or more a class.

    Shapes: `fit` on logits `(N, C)` of any floating dtype and classes `(N,)` int64; logits
    `(..., C)` to probabilities `(..., C)`, float32 at least.

    Raises:
        ValueError: more than 100 classes, in `fit`: one class against a hundred has few rows.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> Isotonic().fit(logits, target)(logits[:1])
        tensor([[0.7500, 0.2500]])
    """

    names = ("x", "y", "sizes", "least")
    x: Tensor
    y: Tensor
    sizes: Tensor
    least: Tensor

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """Knots of all classes, one class after the other, and how many each has."""
        classes = logits.shape[1]
        if classes > MOST_CLASSES:
            raise ValueError(
                f"Isotonic fits every class on its own, found {classes} classes, more than "
                f"{MOST_CLASSES}; use TemperatureScaling or VectorScaling"
            )
        p = logits.softmax(1)
        knots = [pool_adjacent_violators(p[:, k], target == k) for k in range(classes)]
        return {
            "x": torch.cat([x for x, _ in knots]),
            "y": torch.cat([y for _, y in knots]),
            "sizes": p.new_tensor([len(x) for x, _ in knots]),
            "least": p.new_tensor(0.5 / len(p)),
        }

    def apply_to(self, logits: Tensor) -> Tensor:
        """The maps of all classes, normalised."""
        p = logits.softmax(-1)
        sizes = [int(size) for size in self.sizes]
        xs = torch.split(self.number("x", logits), sizes)
        ys = torch.split(self.number("y", logits), sizes)
        mapped = [
            interpolate(column, x, y) for column, x, y in zip(p.unbind(-1), xs, ys, strict=True)
        ]
        return normalised(torch.stack(mapped, -1), p, self.number("least", logits))


def normalised(values: Tensor, p: Tensor, least: Tensor) -> Tensor:
    """Values, at least `least` where p is not 0, over their sum; p in rows of zeros; `(..., C)`."""
    values = torch.where(values.sum(-1, keepdim=True) > 0, values, p)
    values = torch.where(p > 0, torch.maximum(values, least), values)
    return values / values.sum(-1, keepdim=True).clamp(min=torch.finfo(values.dtype).tiny)
