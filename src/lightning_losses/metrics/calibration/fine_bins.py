# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What wants all rows sorted by confidence, computed from one fine histogram instead.

A fine bin keeps `n`, the sum of confidences and the number of correct rows. What is lost is the
order of the rows inside a bin, and each function states how much that can matter; `smooth.py` and
`ranking.py` go on from here. With no rows every value is NaN.
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


def equal_mass(fine: FineBins, groups: int = 15) -> FineBins:
    """Sums over `groups` groups of equally many rows, sorted by confidence; for `binned.ece` & co.

    Group sizes differ by at most one row, larger groups first; with fewer rows than groups each row
    is a group. A fine bin that lies across a boundary is split in proportion, so rows of equal
    confidence are treated alike, where sorting splits them arbitrarily.

    Against sorting, a boundary that falls inside a fine bin of width `w` with `n` rows, `a` of them
    correct, moves at most `d = n w + a (n - a) / n` of excess from one group to the next. Write
    `d_g` for the sum of that over the two boundaries of group `g`. Then `ece` is off by at most
    `sum_g d_g / N`, `rmsce` by `sqrt(sum_g d_g^2 / (n_g N))`, `mce` by `max_g d_g / n_g`, and the
    square of `debiased` by `sum_g (d_g (2 |gap_g| + d_g / n_g) + d_g / (n_g - 1)) / N`.
    """
    total = fine.rows.sum()
    group = torch.arange(groups + 1, device=fine.rows.device)
    boundary = group * (total // groups) + torch.minimum(group, total % groups)
    last = fine.rows.cumsum(0)
    bin_ = torch.searchsorted(last, boundary).clamp(max=len(last) - 1)
    # How much of the boundary's bin lies below the boundary, in rows; then the same in sums.
    below = fine.rows[bin_] - (last[bin_] - boundary)
    share = below.to(fine.confidence) / fine.rows[bin_].clamp(min=1)

    def between(sums: Tensor) -> Tensor:
        return (running_sum(sums)[bin_] - (1 - share) * sums[bin_]).diff()

    return FineBins(boundary.diff(), between(fine.confidence), between(fine.correct))


def ks(fine: FineBins) -> Tensor:
    """Kolmogorov-Smirnov calibration error `max_k |sum_{i <= k} (c_i - a_i)| / N` over sorted rows.

    Needs no bins of its own (arXiv 2006.12800). Read at the fine edges only, so never above the
    sorted value, and below it by at most `min(S+, S-) / N` of the worst bin, where `S+` sums `c`
    over its wrong rows and `S-` sums `1 - c` over its correct rows.
    """
    return running_sum(fine.confidence - fine.correct).abs().max() / fine.rows.sum()


def running_sum(values: Tensor) -> Tensor:
    """`values.cumsum(-1)` by doubling, O(F log F).

    torch.cumsum of floats raises on CUDA under `use_deterministic_algorithms`, which is what
    `Trainer(deterministic=True)` turns on.
    """
    shift = 1
    while shift < values.shape[-1]:
        values = values + functional.pad(values[..., :-shift], (shift, 0))
        shift *= 2
    return values
