# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`search`: ``floor + scale * x^-exponent - gain * annealing``, fitted for a grid of exponents."""

from __future__ import annotations

import itertools
import math
from typing import NamedTuple

import torch
from torch import Tensor

#: Smallest and largest exponent tried. Published ones lie between 0.05 and 1.
EXPONENTS = (0.02, 4.0)
#: Log residuals count by their square up to here at least (arXiv 2408.11029), then linearly.
DELTA = 1e-3
#: Huber's function has 95 % of the efficiency of squares at 1.345 standard deviations; of normal
#: residuals, squares capped there have this mean.
CAP, CAPPED = 1.345, 0.7102
#: Exponents on a grid, and how often it zooms in at most.
SIZE, ZOOMS = 33, 8
#: Exponents whose fit is worse than the best by this in chi-square count nothing.
REACH = 12.0
#: Log residuals below this are those of arithmetic.
ROUNDING = 1e-6
#: Steps of reweighting.
ROUNDS = 12

_SUBSETS = torch.tensor(list(itertools.product([True, False], repeat=3)))[:-1]  # (7, 3)


class Grid(NamedTuple):
    """A fit for each of ``k`` exponents."""

    exponent: Tensor  # (k,)
    theta: Tensor  # (k, 3) floor, scale and gain of the columns in `unit`
    weight: Tensor  # (k,) how well it fits, as a share of the best
    covariance: Tensor  # (k, 3, 3) of theta
    residual: float
    correlation: float  # of each residual with the next
    unit: tuple[float, float]  # of x and annealing

    @property
    def best(self) -> int:
        """Place of the exponent that fits best."""
        return int(self.weight.argmax())

    def law(self) -> tuple[float, float, float, float]:
        """Floor, scale, exponent and gain of the best, in the units of the caller."""
        exponent = float(self.exponent[self.best])
        floor, scale, gain = self.theta[self.best].tolist()
        return floor, scale * self.unit[0] ** exponent, exponent, gain / self.unit[1]

    def predict(self, x: float, annealing: float) -> tuple[Tensor, Tensor]:
        """Loss there by each exponent ``(k,)``, and standard deviation of the log of a point."""
        where = torch.tensor([x, annealing], dtype=torch.float64)[:, None]
        row = _columns(where[0] / self.unit[0], where[1] / self.unit[1], self.exponent)
        value = (row @ self.theta[:, :, None])[:, 0, 0]
        variance = (row @ self.covariance @ row.mT)[:, 0, 0] / value.square()
        return value, (variance.clamp(min=0) + self.residual**2).sqrt()


def huber(residual: Tensor, delta: float | Tensor = DELTA) -> Tensor:
    """Half the square up to ``delta``, linear beyond."""
    size = residual.abs()
    return torch.where(size <= delta, residual.square() / 2, delta * (size - delta / 2))


def search(x: Tensor, loss: Tensor, annealing: Tensor) -> Grid:
    """Fit all exponents, closer and closer to the best, until the grid shows how certain it is.

    Args:
        x: ``(n,)`` float64, positive.
        loss: ``(n,)``, positive.
        annealing: ``(n,)``; zeros for the plain power law.
    """
    unit = (float(x[-1]), float(annealing.abs().max()) or 1.0)
    low, high = (math.log(e) for e in EXPONENTS)
    sigma = 0.0
    for zoom in range(ZOOMS):
        exponent = torch.linspace(low, high, SIZE, dtype=torch.float64).exp()
        columns = _columns(x / unit[0], annealing / unit[1], exponent)
        delta = max(DELTA, CAP * sigma)
        theta, residual, gram = _fit(columns, loss, delta)
        cost = huber(residual, delta).sum(1)
        best = int(cost.argmin())
        near = residual[best]
        freedom = len(x) - 2 - int(columns.any(1)[best].sum())
        if zoom == 0:  # from as good as absolute deviations: a spike must not decide what is one
            sigma = 1.4826 * float(near.abs().median())
            continue
        capped = float(near.square().clamp(max=delta**2).sum())
        sigma = max(math.sqrt(capped / CAPPED / freedom), 1e-9)
        correlation = _correlation(near.clamp(-delta, delta)) if sigma > ROUNDING else 0.0
        # Correlated residuals are fewer than they look; few tell their own spread badly.
        repeats = (1 + max(correlation, 0)) / max(1 - correlation, 0.02)
        variance = sigma**2 * repeats * freedom / (freedom - 2)
        worse = 2 * (cost - cost[best]) / variance
        inside = (worse <= REACH).nonzero()[:, 0]
        first, last = int(inside[0]), int(inside[-1])
        if last - first >= SIZE // 2 or zoom == ZOOMS - 1:
            break
        low = math.log(float(exponent[max(first - 1, 0)]))
        high = math.log(float(exponent[min(last + 1, SIZE - 1)]))
    weight = (-worse / 2).exp()
    covariance = variance * _inverse(gram, torch.ones(3, dtype=torch.bool))
    return Grid(exponent, theta, weight, covariance, sigma, correlation, unit)


def _correlation(residual: Tensor) -> float:
    """Of each residual with the next."""
    return float((residual[1:] * residual[:-1]).sum() / residual.square().sum())


def _columns(x: Tensor, annealing: Tensor, exponent: Tensor) -> Tensor:
    """``(k, n, 3)`` what the three coefficients are multiplied by."""
    power = x ** -exponent[:, None]
    return torch.stack([torch.ones_like(power), power, -annealing.expand_as(power)], 2)


def _fit(columns: Tensor, loss: Tensor, delta: float) -> tuple[Tensor, Tensor, Tensor]:
    """Coefficients ``(k, 3)``, log residuals ``(k, n)``, and weighted products ``(k, 3, 3)``.

    Gauss-Newton for the logarithm, reweighted for Huber's function; the start is the loss itself.
    """
    value = loss.expand(columns.shape[:2])
    residual = torch.zeros_like(value)
    for _ in range(ROUNDS):
        weight = delta / residual.abs().clamp(min=delta) / value.square()
        weighted = columns * weight[..., None]
        gram = weighted.mT @ columns
        theta = non_negative(gram, (weighted.mT @ (value * (1 + residual))[..., None])[..., 0])
        # A start far off may send the law below zero, where there is no logarithm.
        value = torch.maximum((columns @ theta[..., None])[..., 0], loss / 20)
        residual = (loss / value).log()
    return theta, residual, gram


def non_negative(gram: Tensor, right: Tensor) -> Tensor:
    """Minimum of ``t G t / 2 - t b`` over ``t >= 0``, ``(k, 3)``: the best of all subsets."""
    found = (_inverse(gram[:, None], _SUBSETS) @ right[:, None, :, None])[..., 0]  # (k, 7, 3)
    value = -(found * right[:, None]).sum(2)
    best = torch.where((found >= 0).all(2), value, torch.inf).argmin(1)
    return found[torch.arange(len(found)), best].clamp(min=0)


def _inverse(gram: Tensor, kept: Tensor) -> Tensor:
    """Inverse of the rows and columns kept ``(..., 3)`` and not empty, zeros elsewhere."""
    diagonal = gram.diagonal(dim1=-2, dim2=-1)
    kept = kept & (diagonal > 0)
    outside = torch.diag_embed((~kept).to(gram.dtype))
    scale = torch.where(diagonal > 0, diagonal, 1).sqrt()
    outer = scale[..., :, None] * scale[..., None, :]
    both = kept[..., :, None] & kept[..., None, :]
    ridge = 1e-13 * torch.eye(3, dtype=gram.dtype)
    return torch.where(both, torch.linalg.inv(gram / outer * both + outside + ridge) / outer, 0)
