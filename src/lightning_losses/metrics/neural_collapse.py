# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How far features and class weights are from neural collapse, from sums that do not grow."""

from __future__ import annotations

import math
from functools import reduce
from typing import Any, Literal, NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics import sums

GlobalMean = Literal["classes", "rows"]


class ClassMoments(NamedTuple):
    """Counts, means and scatter within classes: all that NC1, NC2 and NC3 depend on."""

    count: Tensor  # (C,) int64
    mean: Tensor  # (C, D), of the rows of each class
    within: Tensor  # (D, D), sum over rows of (x - mean of its class)(x - mean of its class)^T

    def merge(self, other: ClassMoments) -> ClassMoments:
        """The moments of the rows of both; sums about means, so nothing large cancels."""
        n, m = self.count.to(self.mean.dtype), other.count.to(self.mean.dtype)
        all_rows = (n + m).clamp(min=1)
        delta = other.mean - self.mean
        between = delta * (n * m / all_rows).sqrt()[:, None]
        return ClassMoments(
            self.count + other.count,
            self.mean + delta * (m / all_rows)[:, None],
            self.within + other.within + between.T @ between,
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
        if features.shape != (len(target), self.features) or target.ndim != 1:
            raise ValueError(
                f"needs features (N, {self.features}) and target (N,), found "
                f"{tuple(features.shape)} and {tuple(target.shape)}."
            )
        keep = target >= 0 if valid is None else (target >= 0) & valid.bool()
        finite = features.isfinite().all(1)
        self.skipped = self.skipped + (keep & ~finite).sum()
        keep = keep & finite
        rows, classes = features[keep].to(self.mean.dtype), target[keep].long()
        if not len(rows):
            return
        if int(classes.max()) >= self.classes:
            raise ValueError(f"class {int(classes.max())} is not among {self.classes} classes.")
        own = torch.float64 if features.dtype == torch.float64 else torch.float32
        self.epsilon = self.epsilon.clamp(min=torch.finfo(own).eps)
        # As `ClassMoments.merge`, but over the classes of this batch only.
        here, which, n = classes.unique(return_inverse=True, return_counts=True)
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
        extra = {"class_count": moments.count, "class_mean": moments.mean, "skipped": self.skipped}
        return found | extra


def neural_collapse(
    moments: ClassMoments,
    head_weight: Tensor | None = None,
    global_mean: GlobalMean = "classes",
    epsilon: float = 0.0,
) -> dict[str, Tensor]:
    """NC1 to NC3 from the moments of features; all are 0 at collapse.

    With M the K centred class means, S_W the covariance within classes (over all rows), S_B that
    of the class means (each counts once), and E the simplex equiangular tight frame:

    - ``nc1`` tr(S_W pinv(S_B)) / K, ``nc1_quotient`` tr(S_W) / tr(S_B);
    - ``nc2_norms`` standard deviation of the norms of M over their mean; ``nc2_angle_std`` standard
      deviation of the cosines between rows of M; ``nc2_angles`` mean of |cosine + 1/(K-1)|;
      ``nc2_etf`` Frobenius norm of M M^T / \\|M M^T\\| - E; the same of the weights with
      ``_weights``;
    - ``nc3`` squared Frobenius norm of W / \\|W\\| - M / \\|M\\| (0 to 4), ``nc3_product`` of
      W M^T / \\|W M^T\\| - E (not squared).

    What is undefined is left out: all with fewer than two classes or with means that coincide;
    angles where a class mean lies in the middle; what needs weights without or with zero weights.

    Args:
        epsilon: relative rounding of the features. Directions in which class means differ by less
            are not inverted in ``nc1``.

    Raises:
        ValueError: weights that are not ``(C, D)``.
    """
    count, mean, within = (part.detach().cpu() for part in moments)
    if head_weight is not None and head_weight.shape != mean.shape:
        raise ValueError(
            f"head_weight must be {tuple(mean.shape)}, found {tuple(head_weight.shape)}."
        )
    there = count > 0
    n, centres = count[there].double(), mean[there].double()
    classes = len(centres)
    if classes < 2:
        return {}
    share = n / n.sum() if global_mean == "rows" else torch.full_like(n, 1 / classes)
    m = centres - share @ centres
    rounding = max(epsilon, max(m.shape) * torch.finfo(torch.float64).eps) * centres.norm()
    _, size, direction = torch.linalg.svd(m, full_matrices=False)
    wide = size > rounding
    if not bool(wide.any()):
        return {}
    covariance = within.double() / n.sum()
    along = torch.einsum("kd,de,ke->k", direction[wide], covariance, direction[wide])
    found = {
        "nc1": (along / size[wide].square()).sum(),  # K of S_B and of the definition cancel
        "nc1_quotient": covariance.trace() * classes / m.square().sum(),
        **_frame(m, "", float(rounding)),
    }
    if head_weight is not None:
        w = head_weight.detach().cpu()[there].double()
        if bool(w.isfinite().all()) and float(w.norm()) > 0:
            found |= _frame(w, "_weights", 0.0)
            found["nc3"] = (w / w.norm() - m / m.norm()).square().sum()
            if float((w @ m.T).norm()) > 0:
                found["nc3_product"] = _etf_distance(w @ m.T)
    return found


def _frame(rows: Tensor, suffix: str, zero: float) -> dict[str, Tensor]:
    """NC2 of ``(K, D)`` rows: equal norms, equal angles, and both."""
    norm = rows.norm(dim=1)
    found = {
        f"nc2_norms{suffix}": norm.std(unbiased=False) / norm.mean(),
        f"nc2_etf{suffix}": _etf_distance(rows @ rows.T),
    }
    if float(norm.min()) > zero:
        unit, classes = rows / norm[:, None], len(rows)
        i, j = torch.triu_indices(classes, classes, 1)
        cosine = (unit @ unit.T)[i, j]
        found[f"nc2_angle_std{suffix}"] = cosine.std(unbiased=False)
        found[f"nc2_angles{suffix}"] = (cosine + 1 / (classes - 1)).abs().mean()
    return found


def _etf_distance(gram: Tensor) -> Tensor:
    classes = len(gram)
    frame = torch.eye(classes, dtype=gram.dtype) - 1 / classes
    distance: Tensor = (gram / gram.norm() - frame / math.sqrt(classes - 1)).norm()
    return distance


def nearest_centre(features: Tensor, class_mean: Tensor, class_count: Tensor) -> Tensor:
    """The class ``(N,)`` whose mean is nearest to each row ``(N, D)``; classes with rows only.

    NC4 is the share of rows for which this is not the prediction of the linear classifier.
    """
    there = (class_count > 0).nonzero()[:, 0]
    centres = class_mean[there]
    middle = centres.mean(0)  # distances about it lose less to rounding
    rows, centres = features.to(class_mean.dtype) - middle, centres - middle
    nearest: Tensor = there[(centres.square().sum(1) - 2 * rows @ centres.T).argmin(1)]
    return nearest
