# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How confident a model is, as a histogram of constant size: what drift is measured on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import fine_bins as fine
from lightning_losses.metrics.calibration import sum_metric as sums


class ConfidenceHistogram(sums.SumMetric):
    """Counts confidences in the fine bins of `StreamingCalibration`; needs no target.

    Args:
        bins: how many, with the edges of `fine.arcsine_edges`.
        **kwargs: passed to `torchmetrics.Metric`.
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
        """Add confidences in [0, 1], of any shape; a NaN, or where `valid` is False, counts not."""
        c = confidence.flatten().to(self.edges.dtype)
        keep = ~c.isnan() if valid is None else ~c.isnan() & valid.flatten().bool()
        where = torch.bucketize(torch.where(keep, c, 0), self.edges[1:-1], right=True)
        self.count = self.count.index_add(0, where, keep.long())

    def compute(self) -> Tensor:
        """`(bins,)` int64, summed over processes."""
        return self.count
