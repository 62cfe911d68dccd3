# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How far features and class weights are from neural collapse, from sums that do not grow."""

from __future__ import annotations

from functools import reduce
from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.top_label import counting
from lightning_losses.metrics.representation.class_moments import (
    ClassMoments,
    GlobalMean,
    neural_collapse,
)


class NeuralCollapse(sums.SumMetric):
    """NC1 to NC3 over all rows, in memory of one ``(C, D)`` and one ``(D, D)`` tensor, float64.

    Papyan, Han and Donoho 2020 (arXiv 2008.08186). Sums are about running means (Chan's update),
    over batches and processes alike. Classes without rows do not take part; K is the number of
    those with rows.

    Args:
        classes: C, the number of classes.
        features: D, the length of a feature vector.
        global_mean: what class means are centred at: the mean of the class means (``classes``), or
            that of all rows (``rows``). They differ where classes are unbalanced.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: a size below 1, or another word for ``global_mean``.

    Examples:
        >>> metric = NeuralCollapse(classes=3, features=3)
        >>> metric.update(torch.eye(3).repeat(4, 1), torch.arange(12) % 3)  # a point a class
        >>> found = metric.compute()
        >>> [round(abs(found[name].item()), 4) for name in ("nc1", "nc2_norms", "nc2_angles")]
        [0.0, 0.0, 0.0]
    """

    full_state_update = True  # forward() would otherwise stack the states that compute() merges

    count: Tensor
    mean: Tensor
    within: Tensor
    skipped: Tensor
    epsilon: Tensor

    def __init__(
        self, classes: int, features: int, global_mean: GlobalMean = "classes", **kwargs: Any
    ) -> None:
        super().__init__(compute_with_cache=False, **kwargs)  # compute has an argument
        if classes < 1 or features < 1:
            raise ValueError(f"classes and features must be at least 1: {classes}, {features}.")
        if global_mean not in ("classes", "rows"):
            raise ValueError(f"global_mean is {global_mean!r}; write 'classes' or 'rows'.")
        self.classes, self.features, self.global_mean = classes, features, global_mean
        dtype = sums.sum_dtype(self.device)
        # Without a reduction, torchmetrics stacks the states of all processes.
        self.add_state("count", torch.zeros(classes, dtype=torch.int64), dist_reduce_fx=None)
        self.add_state("mean", torch.zeros(classes, features, dtype=dtype), dist_reduce_fx=None)
        self.add_state("within", torch.zeros(features, features, dtype=dtype), dist_reduce_fx=None)
        self.add_state("skipped", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
        self.add_state("epsilon", torch.zeros((), dtype=dtype), dist_reduce_fx="max")

    def update(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add rows: features ``(N, D)`` of any float dtype, class indices ``(N,)``.

        Rows with a negative target or where ``valid`` is False do not count, nor do rows that are
        not finite, which `compute` tells the number of.

        Raises:
            ValueError: shapes that do not fit, or a class index that is too large.
        """
        if (
            target.ndim != 1
            or target.is_floating_point()
            or features.shape != (len(target), self.features)
        ):
            raise ValueError(
                f"needs features (N, {self.features}) and target (N,) of integers, found "
                f"{tuple(features.shape)} and {target.dtype} {tuple(target.shape)}."
            )
        keep = (target >= 0) & counting(valid, target, "NeuralCollapse")
        finite = features.isfinite().all(1)
        self.skipped = self.skipped + (keep & ~finite).sum()
        keep = keep & finite
        rows, classes = features[keep].to(self.mean.dtype), target[keep].long()
        if not len(rows):
            return
        if int(classes.max()) >= self.classes:
            raise ValueError(f"class {int(classes.max())} is not among {self.classes} classes.")
        self.epsilon = self.epsilon.clamp(min=torch.finfo(features.dtype).eps)
        # As `ClassMoments.merge`, but over the classes of this batch only.
        here, which, n = torch.unique(classes, return_inverse=True, return_counts=True)
        m = n.to(rows.dtype)
        mean = torch.zeros(len(here), self.features, dtype=rows.dtype, device=rows.device)
        mean = mean.index_add(0, which, rows) / m[:, None]
        before = self.count[here].to(rows.dtype)
        delta = mean - self.mean[here]
        shift = delta * (before * m / (before + m)).sqrt()[:, None]
        deviations = torch.cat([rows - mean[which], shift])
        self.within = self.within + deviations.T @ deviations
        self.mean = self.mean.index_add(0, here, delta * (m / (before + m))[:, None])
        self.count = self.count.index_add(0, here, n)

    def moments(self) -> ClassMoments:
        """The moments of this process; of all of them while states are synchronised."""
        count, mean, within = self.count, self.mean, self.within
        if count.ndim == 1:
            return ClassMoments(count, mean, within)
        parts = [ClassMoments(*part) for part in zip(count, mean, within, strict=True)]
        return reduce(ClassMoments.merge, parts)

    def compute(self, head_weight: Tensor | None = None) -> dict[str, Tensor]:
        """Measures by name, 0-dim float64; see `neural_collapse`.

        Also ``class_count`` ``(C,)`` and ``class_mean`` ``(C, D)`` of all processes (for NC4: see
        `nearest_centre`), and ``skipped``, the number of rows that were not finite.

        Args:
            head_weight: ``(C, D)`` weights of the linear classifier, for NC3.
        """
        moments = self.moments()
        found = neural_collapse(moments, head_weight, self.global_mean, float(self.epsilon))
        extra = {"class_count": moments.counts, "class_mean": moments.mean, "skipped": self.skipped}
        return found | extra
