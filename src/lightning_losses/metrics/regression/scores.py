# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Proper scores of a row: of a Gaussian, of a quantile, of an interval, of several intervals.

All are in the unit of the target, but for the likelihood (nats), and lower is better. As losses:
`gaussian_nll`, `pinball`, `weighted_interval_score`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor


def same_shape(who: str, **tensors: Tensor) -> None:
    """Raise ValueError unless all have one shape, since one would be broadcast, and are real."""
    shapes = {tuple(tensor.shape) for tensor in tensors.values()}
    if len(shapes) > 1 or any(tensor.is_complex() for tensor in tensors.values()):
        found = ", ".join(f"{name} {t.dtype} {tuple(t.shape)}" for name, t in tensors.items())
        raise ValueError(
            f"{who} needs real numbers of one shape, found {found}; write squeeze(1) for (N, 1)"
        )


def refuse(wrong: Tensor, words: str) -> None:
    """Raise ValueError of these words if anything is wrong, on a CPU, where asking is no wait."""
    if wrong.device.type == "cpu" and bool(wrong.any()):
        raise ValueError(words)


DEVIATION = "deviation must be at least 0: write softplus of what the network says, variance.sqrt()"


def crps_gaussian(mean: Tensor, deviation: Tensor, target: Tensor) -> Tensor:
    """Continuous ranked probability score of `N(mean, deviation^2)`, of each entry.

    `s (z (2 Phi(z) - 1) + 2 phi(z) - 1 / sqrt(pi))` with `z = (y - mean) / s` (Gneiting and Raftery
    2007, doi 10.1198/016214506000001437); the absolute error where s is 0.

    Args:
        mean: of the Gaussian, `(N,)` or any other shape, floating.
        deviation: its standard deviation (not the variance), of that shape.
        target: the same.

    Returns:
        That shape, in the unit of the target.

    Raises:
        ValueError: shapes differ; on a CPU, a negative deviation.

    Examples:
        >>> mean, deviation = torch.zeros(2), torch.tensor([1.0, 0.0])
        >>> crps_gaussian(mean, deviation, torch.tensor([0.0, 3.0]))
        tensor([0.2337, 3.0000])
    """
    same_shape("crps_gaussian", mean=mean, deviation=deviation, target=target)
    refuse(deviation < 0, DEVIATION)
    error = target - mean
    z = error / torch.where(deviation > 0, deviation, 1)
    density = (-0.5 * z.square()).exp() / math.sqrt(2 * math.pi)
    middle = z * torch.erf(z / math.sqrt(2)) + 2 * density - 1 / math.sqrt(math.pi)
    return torch.where(deviation == 0, error.abs(), deviation * middle)


def nll_gaussian(mean: Tensor, deviation: Tensor, target: Tensor) -> Tensor:
    """Negative log-density of `N(mean, deviation^2)` at the target, nats, of each entry.

    Args:
        mean: of the Gaussian, `(N,)` or any other shape, floating.
        deviation: its standard deviation (not the variance), of that shape.
        target: the same.

    Returns:
        That shape, nats.

    Raises:
        ValueError: shapes differ; on a CPU, a negative deviation.

    Examples:
        >>> nll_gaussian(torch.zeros(2), torch.tensor([1.0, 2.0]), torch.zeros(2))
        tensor([0.9189, 1.6121])
    """
    same_shape("nll_gaussian", mean=mean, deviation=deviation, target=target)
    refuse(deviation < 0, DEVIATION)
    z = (target - mean) / deviation
    return 0.5 * z.square() + deviation.log() + 0.5 * math.log(2 * math.pi)


def quantile_score(quantile: Tensor, target: Tensor, level: float | Tensor) -> Tensor:
    """Pinball loss `max(tau e, (tau - 1) e)`, `e = target - quantile`, of each entry.

    Args:
        quantile: `(N,)` or any other shape.
        target: the same.
        level: tau in (0, 1); or a tensor that is one with the shape's last dimensions.

    Raises:
        ValueError: shapes differ; on a CPU, a level outside (0, 1).

    Examples:
        >>> quantile_score(torch.ones(2), torch.tensor([2.0, 0.0]), level=0.9)
        tensor([0.9000, 0.1000])
    """
    same_shape("quantile_score", quantile=quantile, target=target)
    tau = torch.as_tensor(level)
    refuse((tau <= 0) | (tau >= 1), "level must be in (0, 1): write 0.9 for 90 %")
    error = target - quantile
    return torch.maximum(level * error, (level - 1) * error)


def interval_score(lower: Tensor, upper: Tensor, target: Tensor, alpha: float = 0.1) -> Tensor:
    """Width of a central interval, plus `2 / alpha` times how far the target is outside.

    `(u - l) + 2/alpha (l - y)+ + 2/alpha (y - u)+` of each entry, for an interval that should hold
    the target with chance `1 - alpha` (Gneiting and Raftery 2007, doi 10.1198/016214506000001437).

    Args:
        lower: bounds, `(N,)` or any other shape, floating, in the unit of the target.
        upper: the same.
        target: the same.
        alpha: share of targets that may be outside, in (0, 1).

    Returns:
        That shape, in the unit of the target.

    Raises:
        ValueError: shapes differ; alpha outside (0, 1); on a CPU, bounds the wrong way round.

    Examples:
        >>> lower, upper = torch.zeros(2), torch.ones(2)
        >>> interval_score(lower, upper, torch.tensor([0.5, 1.5]), alpha=0.1)
        tensor([ 1., 11.])
    """
    same_shape("interval_score", lower=lower, upper=upper, target=target)
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), found {alpha}; write 0.1 for 90 % intervals")
    refuse(
        lower > upper,
        "lower must not be above upper, where a score would be negative: write isotonic_quantiles "
        "of quantiles that cross",
    )
    outside = (lower - target).clamp(min=0) + (target - upper).clamp(min=0)
    return (upper - lower) + 2 / alpha * outside


def weighted_interval_score(
    median: Tensor, lower: Tensor, upper: Tensor, target: Tensor, alphas: Sequence[float]
) -> Tensor:
    """`(|y - median| / 2 + sum_k alpha_k / 2 IS_k) / (K + 1/2)` of each row, `(N,)`.

    Bracher et al., arXiv 2005.12881: twice the mean pinball loss over the `2 K + 1` quantiles, and
    so close to the CRPS with many.

    Args:
        median: `(N,)`.
        lower: `(N, K)`, the quantiles `alpha_k / 2`.
        upper: `(N, K)`, the quantiles `1 - alpha_k / 2`.
        target: `(N,)`.
        alphas: K numbers in (0, 1).

    Raises:
        ValueError: shapes or numbers that do not go together.

    Examples:
        >>> lower, upper = torch.tensor([[-1.0]]), torch.tensor([[1.0]])
        >>> weighted_interval_score(torch.zeros(1), lower, upper, torch.tensor([2.0]), alphas=[0.5])
        tensor([1.6667])
    """
    same_shape("weighted_interval_score", median=median, target=target)
    same_shape("weighted_interval_score", lower=lower, upper=upper)
    if target.ndim != 1 or lower.shape != (*target.shape, len(alphas)):
        raise ValueError(
            f"weighted_interval_score needs lower and upper (N, {len(alphas)}), one a column of "
            f"alphas, for target (N,), found {tuple(lower.shape)} and {tuple(target.shape)}"
        )
    total = (target - median).abs() / 2
    for k, alpha in enumerate(alphas):
        total = total + alpha / 2 * interval_score(lower[:, k], upper[:, k], target, alpha)
    return total / (len(alphas) + 0.5)
