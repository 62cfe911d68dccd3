# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration measures that want all rows sorted, computed from one fine histogram instead.

A fine bin keeps `n`, the sum of confidences and the number of correct rows. What is lost is the
order of the rows inside a bin, and each function states how much that can matter. With no rows
every value is NaN.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional


class FineBins(NamedTuple):
    """Per-bin sums over rows: `rows` (how many) is `(F,)` int64, the others `(F,)` float64."""

    rows: Tensor
    confidence: Tensor
    correct: Tensor


def arcsine_edges(bins: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Edges `sin^2(pi k / 2 bins)` on [0, 1], `(bins + 1,)`: width goes as `sqrt(c (1 - c))`.

    A width is then the same number of standard deviations of a coin with that bias everywhere. At
    1024 bins the widest is 1.5e-3 and the ones at 0 and 1 are 2.4e-6, where trained classifiers and
    large vocabularies put most rows: equal widths would tie all of those and push `auroc` to 1/2.
    """
    edges = (torch.arange(bins + 1, dtype=dtype) * (math.pi / (2 * bins))).sin().square()
    edges[-1] = 1.0
    return edges


def ece_equal_mass(fine: FineBins, groups: int = 15) -> Tensor:
    """Calibration error over `groups` groups of equally many rows, sorted by confidence.

    Group sizes differ by at most one row, larger groups first; with fewer rows than groups each row
    is a group. A fine bin that lies across a boundary is split in proportion, so rows of equal
    confidence are treated alike, where sorting splits them arbitrarily. Against sorting, each
    boundary that falls inside a fine bin of width `w` with `n` rows, `a` of them correct, adds at
    most `2 (n w + a (n - a) / n) / N`.
    """
    total = fine.rows.sum()
    group = torch.arange(groups + 1, device=fine.rows.device)
    boundary = group * (total // groups) + torch.minimum(group, total % groups)
    last = fine.rows.cumsum(0)
    bin_ = torch.searchsorted(last, boundary).clamp(max=len(last) - 1)
    # How much of the boundary's bin lies below the boundary, in rows; then the same in excess.
    below = fine.rows[bin_] - (last[bin_] - boundary)
    excess = fine.confidence - fine.correct
    share = below.to(excess) / fine.rows[bin_].clamp(min=1)
    running = _running_sum(excess)[bin_] - (1 - share) * excess[bin_]
    return running.diff().abs().sum() / total


def ks(fine: FineBins) -> Tensor:
    """Kolmogorov-Smirnov calibration error `max_k |sum_{i <= k} (c_i - a_i)| / N` over sorted rows.

    Needs no bins of its own (arXiv 2006.12800). Read at the fine edges only, so never above the
    sorted value, and below it by at most `min(S+, S-) / N` of the worst bin, where `S+` sums `c`
    over its wrong rows and `S-` sums `1 - c` over its correct rows.
    """
    return _running_sum(fine.confidence - fine.correct).abs().max() / fine.rows.sum()


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


def auroc(fine: FineBins) -> Tensor:
    """Chance that a correct row has more confidence than a wrong one; ties count one half.

    NaN when every row is correct or every row is wrong: ranking is undefined then, not 1/2. Rows
    that share a fine bin are ties: off by at most half the share of (correct, wrong) pairs that do.
    """
    wrong = fine.rows - fine.correct
    beaten = _running_sum(wrong) - wrong / 2
    return (fine.correct * beaten).sum() / (fine.correct.sum() * wrong.sum())


def _running_sum(values: Tensor) -> Tensor:
    """`values.cumsum(0)` by doubling, O(F log F).

    torch.cumsum of floats raises on CUDA under `use_deterministic_algorithms`, which is what
    `Trainer(deterministic=True)` turns on.
    """
    shift = 1
    while shift < len(values):
        values = values + functional.pad(values[:-shift], (shift, 0))
        shift *= 2
    return values
