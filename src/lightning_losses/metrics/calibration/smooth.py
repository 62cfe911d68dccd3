# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration error without bins: the excess confidence smoothed by a kernel (arXiv 2309.12236)."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.fine_bins import FineBins

#: Least width, and what all widths that are tried are multiples of.
SMALLEST = 1 / 1024
#: Cells of the regular grid of `smece_auto`: four to its smallest width.
GRID = 2**12
#: Cells of [-HALF, HALF] in log-odds: three to the smallest width there, which is 4 / 1024.
LOGIT_GRID, HALF = 2**16, 42.0
#: Confidences are as far from 0 and 1 in log-odds.
CLIP = 1e-3

Kernel = Literal["reflected", "logit"]


def smece(fine: FineBins, sigma: float = 0.05) -> Tensor:
    """Smooth calibration error: the integral over [0, 1] of `|sum_i K(t, c_i) (c_i - a_i)| / N`.

    `K` is the Gaussian of width `sigma` reflected at 0 and 1 (arXiv 2309.12236). `sigma` is fixed,
    not searched for, so that values of different epochs compare. The rows of a bin are put at their
    mean confidence: off by at most `0.8 / sigma` times the mean of `|c_i - a_i| |c_i - mean_b|`,
    under 0.013 at 1024 bins and in practice near 1e-5. Rows at exactly 0 or 1 count in full; on the
    grid of relplot 1.0.3 they count half.

    Raises:
        ValueError: `sigma` is not positive.
    """
    if sigma <= 0:
        raise ValueError(f"smece needs sigma > 0, found {sigma}; write sigma=0.05")
    # A Gaussian between two mirrors is heat on a rod with insulated ends: a cosine series whose
    # k-th term has decayed by exp(-(pi k sigma)^2 / 2), below 1e-16 from k = 8.6 / (pi sigma) on.
    excess = (fine.confidence - fine.correct) / fine.rows.sum()
    centre = fine.confidence / fine.rows.clamp(min=1)
    wave = math.pi * torch.arange(
        math.ceil(8.6 / (math.pi * sigma)) + 1, dtype=excess.dtype, device=excess.device
    )
    decay = torch.where(wave > 0, 2.0, 1.0) * (-0.5 * (wave * sigma).square()).exp()
    series = decay * ((wave[:, None] * centre).cos() @ excess)
    # Midpoints, close enough for the kinks of the absolute value at any sigma.
    points = max(1024, math.ceil(50 / sigma))
    t = (torch.arange(points, dtype=excess.dtype, device=excess.device) + 0.5) / points
    return ((t[:, None] * wave).cos() @ series).abs().mean()


def smece_logit(fine: FineBins, sigma: float = 0.05) -> Tensor:
    """Smooth calibration error with a Gaussian of width `4 sigma` in the log-odds of confidence.

    `integral |sum_i K(l, logit c_i) (c_i - a_i)| dl / N` over the whole line (relplot's other
    kernel, and torch-uncertainty's default): a width of confidence that narrows towards 0 and 1.
    As there, confidences are taken to be in [0.001, 0.999]. The rows of a bin are put at their mean
    confidence; the grid takes at most `3e-7 / sigma^2` times the mean of the bins' `|excess|`.

    Raises:
        ValueError: `sigma` is not in [1/1024, 1].
    """
    if not SMALLEST <= sigma <= 1:
        raise ValueError(f"smece_logit needs sigma in [1/1024, 1], found {sigma}; write sigma=0.05")
    return _logit_error(fine)(fine.confidence.new_tensor(sigma))


def smece_auto(fine: FineBins, kernel: Kernel = "reflected") -> tuple[Tensor, Tensor]:
    """Smooth calibration error at the width that equals it, and that width; two 0-dim tensors.

    The width is the smallest multiple of 1/1024 that is larger than the error at it, found by
    bisection; since smoothing more never raises the error, there is one such. A choice without
    parameters, but one that moves with the error: to compare epochs, use `smece`.

    Off by at most 1/1024, plus the bound of `smece` at that width, plus `8e-9 / sigma^2` times the
    mean of the bins' `|excess|` for the grid.

    Args:
        fine: the histogram.
        kernel: `reflected` as in `smece`, or `logit` as in `smece_logit`.

    Raises:
        ValueError: another kernel.
    """
    if kernel not in get_args(Kernel):
        raise ValueError(f"kernel must be one of {get_args(Kernel)}, found {kernel!r}")
    error = _reflected_error(fine) if kernel == "reflected" else _logit_error(fine)
    low, high = fine.confidence.new_zeros(()), fine.confidence.new_ones(())
    for _ in range(10):
        middle = (low + high) / 2
        enough = error(middle) < middle
        low, high = torch.where(enough, low, middle), torch.where(enough, middle, high)
    return error(high), high


def _reflected_error(fine: FineBins) -> Callable[[Tensor], Tensor]:
    """`smece` as a function of its width.

    Ten widths, the smallest of a thousand terms: the matrices of `smece` would be large. On a
    regular grid, each bin split between its two neighbours there, both sums are an FFT.
    """
    excess = (fine.confidence - fine.correct) / fine.rows.sum()
    grid = _spread(excess, fine.confidence / fine.rows.clamp(min=1) * GRID, GRID)
    series = torch.fft.rfft(grid, n=2 * GRID).real
    wave = math.pi * torch.arange(GRID + 1, dtype=excess.dtype, device=excess.device)

    def error(sigma: Tensor) -> Tensor:
        decayed = series * (-0.5 * (wave * sigma).square()).exp()
        values = torch.fft.irfft(decayed + 0j, n=2 * GRID)[: GRID + 1].abs()
        integral: Tensor = 2 * (values.sum() - (values[0] + values[-1]) / 2)
        return integral

    return error


def _logit_error(fine: FineBins) -> Callable[[Tensor], Tensor]:
    """`smece_logit` as a function of its width."""
    excess = (fine.confidence - fine.correct) / fine.rows.sum()
    mean = (fine.confidence / fine.rows.clamp(min=1)).clamp(CLIP, 1 - CLIP)
    # A circle so long that no Gaussian is seen from the other side, up to a width of 1.
    place = (mean.logit() + HALF) / (2 * HALF) * LOGIT_GRID
    series = torch.fft.rfft(_spread(excess, place, LOGIT_GRID)[:-1])
    wave = torch.arange(LOGIT_GRID // 2 + 1, dtype=excess.dtype, device=excess.device)
    wave = wave * (math.pi / HALF)

    def error(sigma: Tensor) -> Tensor:
        decayed = series * (-0.5 * (4 * sigma * wave).square()).exp()
        integral: Tensor = torch.fft.irfft(decayed, n=LOGIT_GRID).abs().sum()
        return integral

    return error


def _spread(values: Tensor, position: Tensor, cells: int) -> Tensor:
    """Values at positions in [0, cells], each split between the two points around it."""
    left = position.floor().clamp(max=cells - 1)
    grid = values.new_zeros(cells + 1).index_add(0, left.long(), values * (left + 1 - position))
    return grid.index_add(0, left.long() + 1, values * (position - left))
