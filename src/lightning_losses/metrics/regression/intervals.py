# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do prediction intervals hold as much as they promise, and how wide are they for that?"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.top_label import counting
from lightning_losses.metrics.regression.scores import interval_score, same_shape


class IntervalCoverage(sums.SumMetric):
    """Coverage, width and interval score of central intervals; sums over processes.

    Args:
        alpha: share of targets that may be outside, in (0, 1).
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: alpha outside (0, 1).

    Examples:
        >>> metric = IntervalCoverage(alpha=0.1)
        >>> metric.update(torch.zeros(10), torch.ones(10), torch.arange(10) / 8.5)
        >>> found = metric.compute()
        >>> round(found["coverage"].item(), 2), round(found["interval_score"].item(), 2)
        (0.9, 1.12)
    """

    totals: Tensor
    rows: Tensor
    skipped: Tensor

    def __init__(self, alpha: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not 0 < alpha < 1:
            raise ValueError(f"alpha must be in (0, 1), found {alpha}; write 0.1 for 90 %")
        self.alpha = alpha
        self.add_sums(
            totals=((4,), sums.sum_dtype(self.device)),  # inside, below, width, score
            rows=((), torch.int64),
            skipped=((), torch.int64),
        )

    def update(
        self, lower: Tensor, upper: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> None:
        """Add intervals, all tensors of one shape, `(N,)` or any other.

        A row with a NaN, an infinite target, or bounds the wrong way round does not count, and is
        counted in `skipped`. Infinite bounds (of `conformal_threshold`) have infinite width.

        Raises:
            ValueError: shapes differ; on a CPU, a lower bound above the upper one.
        """
        given = {"lower": lower, "upper": upper, "target": target}
        same_shape("IntervalCoverage", **given)
        low, high, y = (t.detach().flatten().to(self.totals.dtype) for t in given.values())
        counts = counting(valid, lower, "IntervalCoverage").flatten()
        crossed = counts & (low > high)
        if crossed.device.type == "cpu" and bool(crossed.any()):
            raise ValueError(
                f"IntervalCoverage needs lower <= upper, found {low[crossed][0].item():.6g} above "
                f"{high[crossed][0].item():.6g}; write isotonic_quantiles of quantiles that cross"
            )
        keep = counts & (low <= high) & y.isfinite()  # False for NaN
        low, high, y = (torch.where(keep, part, 0) for part in (low, high, y))
        parts = (
            ((low <= y) & (y <= high)).to(y),
            (y < low).to(y),
            high - low,
            interval_score(low, high, y, self.alpha),
        )
        self.totals = self.totals + torch.stack([torch.where(keep, p, 0).sum() for p in parts])
        self.rows = self.rows + keep.sum()
        self.skipped = self.skipped + (counts & ~keep).sum()

    def compute(self) -> dict[str, Tensor]:
        """0-dim tensors, all-reduced over processes; NaN where nothing was seen.

        `coverage`: share of targets inside, bounds included. `coverage_gap`: that minus `1 -
        alpha`. `below`: share of targets below the interval, alpha / 2 of a central one. `width`
        and `interval_score`: means, in the unit of the target. `count` and `skipped`: int64.
        """
        inside, below, width, score = self.totals / self.rows
        return {
            "coverage": inside,
            "coverage_gap": inside - (1 - self.alpha),
            "below": below,
            "width": width,
            "interval_score": score,
            "count": self.rows.clone(),
            "skipped": self.skipped.clone(),
        }
