# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration errors as functions of five numbers a bin: exact, whatever the number of rows was.

Write `c` for the confidence of a row and `a` for whether it was correct (0 or 1). Everything here
needs only the sums of `1, c, a, c^2, c a` over the rows of each bin, so it can be accumulated in
any order, in any chunks and on any number of processes. With no rows every value is NaN (0 / 0):
an error of nothing is unknown, not zero.
"""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class Sums(Protocol):
    """Sums over the rows of each bin, `(B,)` each: what the errors below read."""

    @property
    def rows(self) -> Tensor:
        """How many, int64."""

    @property
    def confidence(self) -> Tensor:
        """Sum of confidences."""

    @property
    def correct(self) -> Tensor:
        """How many were correct."""


class Bins(NamedTuple):
    """Per-bin sums over rows: `rows` (how many) is `(B,)` int64, the others are `(B,)` float64."""

    rows: Tensor
    confidence: Tensor
    correct: Tensor
    confidence_squared: Tensor
    confidence_correct: Tensor


class BrierDecomposition(NamedTuple):
    """The five terms of `brier_decomposition` and their sum `brier`, each a 0-dim tensor."""

    brier: Tensor
    reliability: Tensor
    resolution: Tensor
    uncertainty: Tensor
    within_bin_variance: Tensor
    within_bin_covariance: Tensor


def equal_width_edges(bins: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Edges of `bins` equal bins on [0, 1], `(bins + 1,)`.

    Each edge is one division `k / bins`, so that it is the very number a user gets by typing 0.3;
    `linspace` accumulates a step and gives 0.30000000000000004.
    """
    return torch.arange(bins + 1, dtype=dtype) / bins


def ece(bins: Sums) -> Tensor:
    """Expected calibration error `sum_b n_b / N |conf_b - acc_b|`, a fraction (arXiv 1706.04599).

    Biased upwards when bins hold few rows: read it beside the count.
    """
    return _excess(bins).abs().sum() / bins.rows.sum()


def mce(bins: Sums) -> tuple[Tensor, Tensor]:
    """Largest `|conf_b - acc_b|` over the non-empty bins, and the int64 count of that bin.

    The count is returned because the largest gap usually sits in the emptiest bin.
    """
    gap = _excess(bins).abs() / bins.rows.clamp(min=1)
    worst = torch.where(bins.rows > 0, gap, -1.0).argmax(0, keepdim=True)
    count = bins.rows.gather(0, worst).squeeze(0)
    return torch.where(count > 0, gap.gather(0, worst).squeeze(0), torch.nan), count


def rmsce(bins: Sums) -> Tensor:
    """Root of the mean squared calibration error, `sqrt(sum_b n_b / N (conf_b - acc_b)^2)`."""
    squares = _excess(bins).square() / bins.rows.clamp(min=1)
    return (squares.sum() / bins.rows.sum()).sqrt()


def debiased(bins: Sums) -> Tensor:
    """`rmsce` less what chance adds to it, `sqrt(max(0, sum_b n_b / N (gap_b^2 - chance_b)))`.

    `chance_b = acc_b (1 - acc_b) / (n_b - 1)` estimates the variance of `acc_b` (arXiv 1909.10155).
    Meant for groups of equal mass. A group of one row contributes nothing, and if there are no
    others the value is NaN.
    """
    n = bins.rows.clamp(min=2)
    accuracy = (bins.correct / n).clamp(0, 1)
    chance = accuracy * (1 - accuracy) / (n - 1)
    enough = bins.rows > 1
    square = torch.where(enough, _excess(bins).square() / n - n * chance, 0).sum()
    return torch.where(enough.any(), (square / bins.rows.sum()).clamp(min=0).sqrt(), torch.nan)


def over_under(bins: Sums) -> tuple[Tensor, Tensor]:
    """The over-confident and the under-confident part of `ece`.

    `over + under` is `ece`; `over - under` is mean confidence minus accuracy.
    """
    excess, total = _excess(bins), bins.rows.sum()
    return excess.clamp(min=0).sum() / total, (-excess).clamp(min=0).sum() / total


def brier_decomposition(bins: Bins) -> BrierDecomposition:
    """Split the Brier score of the confidence, `mean (c - a)^2`, into five terms.

    `brier = reliability - resolution + uncertainty + within_bin_variance - within_bin_covariance`
    holds exactly (Stephenson, Coelho and Jolliffe 2008, doi 10.1175/2007WAF2006116.1); the two
    within-bin terms are what the usual three-term identity leaves out. This is the score of the
    event "the prediction is correct", in [0, 1], not the multiclass score in [0, 2].
    """
    total, per_bin = bins.rows.sum(), bins.rows.clamp(min=1)
    confidence, accuracy = bins.confidence / per_bin, bins.correct / per_bin
    base_rate = bins.correct.sum() / total

    def mean(per_bin_sum: Tensor) -> Tensor:
        return per_bin_sum.sum() / total

    return BrierDecomposition(
        brier=mean(bins.confidence_squared - 2 * bins.confidence_correct + bins.correct),
        reliability=mean(bins.rows * (confidence - accuracy).square()),
        resolution=mean(bins.rows * (accuracy - base_rate).square()),
        uncertainty=base_rate * (1 - base_rate),
        within_bin_variance=mean(bins.confidence_squared - bins.confidence * confidence),
        within_bin_covariance=2 * mean(bins.confidence_correct - bins.confidence * accuracy),
    )


def _excess(bins: Sums) -> Tensor:
    """`n_b (conf_b - acc_b)` without dividing, so that an empty bin is a plain zero."""
    return bins.confidence - bins.correct
