# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where will this loss curve end? A power law with a constant, and one that knows of annealing.

Both are ``floor + scale * x^-exponent - gain * annealing``, linear but for the exponent. So there
are no starts that could be bad ones: the exponent is searched on a grid that zooms in, and for each
the rest is the non-negative minimum of Huber's function of the log residuals. Over the grid, how
well an exponent fits says how much its forecast counts.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.training_curve.law_grid import EXPONENTS, Grid, search

#: Fewer points than this are not fitted.
FEWEST = 20
#: Points before this part of the newest one's x are left out: training starts off the law.
EARLIEST = 0.05
#: The window must reach from x to at least so many times x, and the end to at most so many times
#: the newest x.
SHORTEST, HORIZON = 2.0, 10.0
#: An interval with more than this factor from low to high says nothing.
WIDEST = 2.0
#: Lag-1 correlation of residuals above which the curve does not follow the law.
MISFIT = 0.8


class Forecast(NamedTuple):
    """A fitted law and the loss that it expects; NaN where `problem` says why there is none."""

    loss: float
    """The law's value at the end."""
    low: float
    """5 % quantile for one more point there, of the same smoothing as those given: the uncertainty
    of the fit and the spread of the residuals, if the law holds up to the end."""
    high: float
    """95 % quantile."""
    residual: float
    """Standard deviation of the log residuals, that is relative to the loss (robust)."""
    floor: float
    scale: float
    exponent: float
    gain: float
    """0 for the power law."""
    points: int
    """How many were fitted."""
    window: tuple[float, float]
    """x of the first and the last of them."""
    problem: str
    """Why there is no forecast, or empty."""


def forecast(
    x: Sequence[float],
    loss: Sequence[float],
    end: float,
    annealing: Sequence[float] | None = None,
    end_annealing: float = 0.0,
) -> Forecast:
    """Fit the law to a loss curve and evaluate it further on.

    With steps or tokens as x this is the power law with a constant (arXiv 2010.14701, 2102.06701);
    with ``S1`` as x and ``S2`` as annealing of `learning_rate_sums`, the learning-rate annealing
    law (arXiv 2408.11029), in which the rates of the steps to come have their part. The second does
    not let itself be fitted before the learning rate has begun to fall.

    Args:
        x: increasing and positive; points within a warm-up are for the caller to leave out.
        loss: beside it, in any unit. Values that are not positive and finite are left out.
        end: x to forecast at.
        annealing: ``S2`` beside x; None for the power law.
        end_annealing: ``S2`` at the end.

    Raises:
        ValueError: different lengths.

    Examples:
        >>> steps = range(100, 1000, 10)
        >>> losses = [2 + 10 * step**-0.5 for step in steps]
        >>> found = forecast(steps, losses, end=4000)
        >>> round(found.loss, 3), round(found.floor, 3), round(2 + 10 * 4000**-0.5, 3)
        (2.158, 2.0, 2.158)
    """
    annealed = [0.0] * len(x) if annealing is None else list(annealing)
    if not len(x) == len(loss) == len(annealed):
        raise ValueError(
            f"x, loss and annealing must be as many, got {len(x)}, {len(loss)}, {len(annealed)}."
        )
    newest = x[-1] if len(x) else 0.0
    recent = [p for p in zip(x, loss, annealed, strict=True) if p[0] >= EARLIEST * newest > 0]
    used = [p for p in recent if all(map(math.isfinite, p)) and p[1] > 0]
    first, last = (used[0][0], used[-1][0]) if used else (math.nan, math.nan)
    if problem := _too_little(len(recent), len(used), first, last, end):
        return refused(problem, len(used), first, last)
    points = torch.tensor(used, dtype=torch.float64)
    if not float(points[:, 2].abs().max()) > 1e-6 * abs(end_annealing) and end_annealing:
        problem = (
            "the learning rate has not fallen yet, so what the planned fall will bring is not known"
        )
        return refused(problem, len(used), first, last)
    grid = search(*points.T)
    return _judge(grid, len(used), first, last, end, end_annealing)


def _judge(
    grid: Grid, points: int, first: float, last: float, end: float, end_annealing: float
) -> Forecast:
    """The forecast of a fit, if it is fit to be believed."""
    at, spread = grid.predict(end, end_annealing)
    believed = grid.weight > 1e-3
    if not bool((at > 0)[believed].all()):
        problem = "too uncertain: the fitted law may fall to zero before the end"
        return refused(problem, points, first, last)
    floor, scale, exponent, gain = grid.law()
    problem = ""
    if scale == 0:
        problem = "the loss does not fall"
    elif exponent <= EXPONENTS[0] * 1.001:
        problem = f"no exponent: the best one is the smallest tried, {EXPONENTS[0]:g}"
    elif exponent >= EXPONENTS[1] * 0.999:
        problem = f"the loss falls faster than a power law: the best exponent is {exponent:.2g}"
    elif grid.correlation > MISFIT:
        problem = "the losses do not follow the law: long runs of residuals have one sign"
    mixture = at[believed].log(), spread[believed], grid.weight[believed]
    low, high = (math.exp(quantile(*mixture, q)) for q in (0.05, 0.95))
    if not problem and high > WIDEST * low:
        problem = f"too uncertain: 90 % lie between {low:.3g} and {high:.3g}"
    if problem:
        return refused(problem, points, first, last)
    value = float(at[grid.best])
    low, high = min(low, value), max(high, value)
    law = (floor, scale, exponent, gain)
    return Forecast(value, low, high, grid.residual, *law, points, (first, last), "")


def quantile(mean: Tensor, deviation: Tensor, weight: Tensor, share: float) -> float:
    """Where a mixture of normal distributions, ``(k,)`` each, has this share of its mass below."""
    low = float((mean - 10 * deviation).min())
    high = float((mean + 10 * deviation).max())
    for _ in range(60):
        middle = (low + high) / 2
        below = (weight * torch.special.ndtr((middle - mean) / deviation)).sum() / weight.sum()
        low, high = (middle, high) if float(below) < share else (low, middle)
    return (low + high) / 2


def _too_little(points: int, used: int, first: float, last: float, end: float) -> str:
    """What is missing for a fit, or nothing."""
    if used < FEWEST:
        return f"{used} points after the warm-up; it takes {FEWEST}"
    if used < 0.9 * points:
        return f"{points - used} of {points} losses are not positive and finite"
    if last < SHORTEST * first:
        return f"the window is too short: it goes from {first:.4g} to {last:.4g}, less than double"
    if not end <= HORIZON * last:
        return f"the end is too far: more than {HORIZON:g} times of what has been trained"
    return ""


def refused(problem: str, points: int, first: float = math.nan, last: float = math.nan) -> Forecast:
    """No forecast, and why."""
    n = math.nan
    return Forecast(n, n, n, n, n, n, n, n, points, (first, last), problem)
