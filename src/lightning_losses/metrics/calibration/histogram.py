# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How confident a model is, as a histogram of constant size: what drift is measured on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import fine_bins as fine
from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.top_label import counting


class ConfidenceHistogram(sums.SumMetric):
    """Counts confidences in the fine bins of `StreamingCalibration`; needs no target.

    Args:
        bins: how many, with the edges of `fine.arcsine_edges`.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: fewer than one bin.

    Examples:
        >>> metric = ConfidenceHistogram(bins=4)
        >>> metric.update(torch.tensor([0.02, 0.6, 0.99, 0.999]))
        >>> metric.edges
        tensor([0.0000, 0.1464, 0.5000, 0.8536, 1.0000], dtype=torch.float64)
        >>> metric.compute()
        tensor([1, 0, 1, 2])
    """

    edges: Tensor
    count: Tensor

    def __init__(self, bins: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1:
            raise ValueError(f"ConfidenceHistogram needs at least one bin, found bins={bins}")
        edges = fine.arcsine_edges(bins, sums.sum_dtype(self.device))
        self.register_buffer("edges", edges, persistent=False)
        self.add_sums(count=((bins,), torch.int64))

    def update(self, confidence: Tensor, valid: Tensor | None = None) -> None:
        """Add confidences of any shape; what is no probability, or not `valid`, does not count.

        Raises:
            ValueError: a `valid` of another shape; on a CPU, a confidence outside [0, 1], and what
                is neither True nor False in `valid`.
        """
        c = confidence.flatten().to(self.edges.dtype)
        counts = ~c.isnan() & counting(valid, confidence, "ConfidenceHistogram").flatten()
        keep = counts & (c >= -sums.SLACK) & (c <= 1 + sums.SLACK)
        if c.device.type == "cpu" and not torch.equal(keep, counts):
            raise ValueError(
                f"ConfidenceHistogram needs confidences in [0, 1], found "
                f"{c[counts & ~keep][0].item():.6g}; write softmax or sigmoid of logits, p / 100 "
                "of percent"
            )
        c = torch.where(keep, c, 0).clamp(0, 1)
        where = torch.bucketize(c, self.edges[1:-1], right=True)
        self.count = self.count.index_add(0, where, keep.long())

    def compute(self) -> Tensor:
        """`(bins,)` int64, summed over processes."""
        return self.count
