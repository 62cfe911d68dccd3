# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What is ours where we differ from a source: plain formulas, row by row, without the product.

An adapter that raises `Deviates` says by these what the product must find instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

#: Rows of a bin or group: how many, mean confidence, share of correct ones.
Group = tuple[float, float, float]


def rows_of(inputs: dict[str, Any]) -> tuple[Tensor, Tensor]:
    """Confidence and correctness ``(N,)`` of the top label, or of a binary event."""
    p, y = inputs["p"], inputs["y"]
    if p.ndim > y.ndim:
        p = p / p.sum(-1, keepdim=True)
        return p.amax(-1), (p.argmax(-1) == y).double()
    return p, (y == 1).double()


def equal_width(c: Tensor, a: Tensor, bins: int) -> list[Group]:
    """The bins with rows, [lo, hi), the last one closed."""
    inside: list[list[int]] = [[] for _ in range(bins)]
    for i, value in enumerate(c.tolist()):
        inside[sum(value >= k / bins for k in range(1, bins))].append(i)
    return [(len(i), float(c[i].mean()), float(a[i].mean())) for i in inside if i]


def equal_mass(c: Tensor, a: Tensor, groups: int) -> list[Group]:
    """Groups of equally many sorted rows, larger ones first; rows of equal confidence share."""
    order = c.argsort()
    c, a = c[order].clone(), a[order].clone()
    for value in c.unique():
        a[c == value] = a[c == value].mean()
    size, extra = divmod(len(c), groups)
    made, start = [], 0
    for g in range(groups):
        n = size + (g < extra)
        if n:
            made.append((n, float(c[start : start + n].mean()), float(a[start : start + n].mean())))
        start += n
    return made


def calibration_error(groups: list[Group], norm: str) -> float:
    """l1, l2 or max over groups of |confidence - accuracy|."""
    total = sum(n for n, _, _ in groups)
    gaps = [(n / total, abs(conf - acc)) for n, conf, acc in groups]
    if norm == "l1":
        return sum(w * gap for w, gap in gaps)
    if norm == "l2":
        return math.sqrt(sum(w * gap**2 for w, gap in gaps))
    return max(gap for _, gap in gaps)


def smooth_error(c: Tensor, a: Tensor, sigma: float, points: int = 4000) -> float:
    """The integral of |smoothed excess confidence|: a Gaussian and its mirror images, midpoints."""
    t = (torch.arange(points, dtype=torch.float64) + 0.5) / points
    excess = torch.zeros_like(t)
    for shift in range(-6, 7, 2):
        for image in (shift + c, shift - c):
            if bool(((image - image.clamp(0, 1)).abs() > 9 * sigma).all()):
                continue  # too far from [0, 1] to be seen there
            excess += (-((t[:, None] - image) / sigma).square() / 2).exp() @ (c - a)
    return float(excess.abs().mean()) / (sigma * math.sqrt(2 * math.pi) * len(c))


def smooth_error_of_odds(c: Tensor, a: Tensor, sigma: float, points: int = 4000) -> float:
    """The same in log-odds, a Gaussian of width 4 sigma and no mirror; confidences in [1e-3, 1]."""
    at = c.clamp(1e-3, 1 - 1e-3).logit()
    width, reach = 4 * sigma, 7 + 32 * sigma
    t = ((torch.arange(points, dtype=torch.float64) + 0.5) / points * 2 - 1) * reach
    excess = (-((t[:, None] - at) / width).square() / 2).exp() @ (c - a)
    return float(excess.abs().mean()) * 2 * reach / (width * math.sqrt(2 * math.pi) * len(c))


def smallest_width(c: Tensor, a: Tensor, smooth: Callable[..., float] = smooth_error) -> float:
    """The smallest multiple of 1/1024 that is above the smooth error at it."""
    low, high = 0, 1024
    while high - low > 1:
        middle = (low + high) // 2
        enough = smooth(c, a, middle / 1024, points=1000) < middle / 1024
        low, high = (low, middle) if enough else (middle, high)
    return high / 1024


def likeliest_width(p: Tensor) -> float:
    """Of 20 widths, that of the Dirichlet kernels under which rows have most density, less own."""
    p = p / p.sum(1, keepdim=True)
    found = []
    for width in [10 ** (-5 + 4 * k / 14) for k in range(15)] + [0.2, 0.4, 0.6, 0.8, 1.0]:
        log = torch.stack(
            [torch.distributions.Dirichlet(row / width + 1).log_prob(p) for row in p], 1
        )
        others = [torch.cat([row[:i], row[i + 1 :]]) for i, row in enumerate(log)]
        total = sum(float(row.logsumexp(0)) - math.log(len(row)) for row in others)
        found.append((total, width))
    return max(found)[1]


def prefix_risks(c: Tensor, a: Tensor) -> list[float]:
    """Error rate of the k most confident rows, for each k; rows of equal confidence share."""
    a = a.clone()
    for value in c.unique():
        a[c == value] = a[c == value].mean()
    wrong = (1 - a[c.argsort(descending=True)]).cumsum(0)
    return [float(w) / (k + 1) for k, w in enumerate(wrong)]


def least_risks(rows: int, errors: int) -> list[float]:
    """`prefix_risks` of a ranking that has all errors last."""
    return [max(0, k - (rows - errors)) / k for k in range(1, rows + 1)]


def best_temperature(logits: Tensor, target: Tensor) -> float:
    """The T of least NLL of softmax(logits / T), by bisection of its slope in 1 / T."""
    chosen = logits.gather(1, target[:, None])[:, 0]

    def slope(inverse: float) -> float:
        return float((((logits * inverse).softmax(1) * logits).sum(1) - chosen).mean())

    low, high = 1e-3, 1e3
    for _ in range(200):
        middle = math.sqrt(low * high)
        low, high = (low, middle) if slope(middle) > 0 else (middle, high)
    return 1 / low


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """Centre lines of maps ``(B, C, H, W)``; by torch's pools, whose rule for ties is ours."""
    pool = torch.nn.functional.max_pool2d

    def eroded(x: Tensor) -> Tensor:
        return torch.minimum(-pool(-x, (3, 1), 1, (1, 0)), -pool(-x, (1, 3), 1, (0, 1)))

    levels = [x]
    for _ in range(iterations):
        levels.append(eroded(levels[-1]))
    lines = torch.zeros_like(x)
    for level in levels:
        rest = (level - pool(eroded(level), 3, 1, 1)).relu()
        lines = lines + (rest - lines * rest).relu()
    return lines
