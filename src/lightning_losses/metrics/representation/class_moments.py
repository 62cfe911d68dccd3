# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`ClassMoments`: all of features that neural collapse depends on, and the measures made of it."""

from __future__ import annotations

import math
from typing import Literal, NamedTuple

import torch
from torch import Tensor

GlobalMean = Literal["classes", "rows"]


class ClassMoments(NamedTuple):
    """Counts, means and scatter within classes: all that NC1, NC2 and NC3 depend on."""

    counts: Tensor  # (C,) int64, rows of each class
    mean: Tensor  # (C, D), of the rows of each class
    within: Tensor  # (D, D), sum over rows of (x - mean of its class)(x - mean of its class)^T

    def merge(self, other: ClassMoments) -> ClassMoments:
        """The moments of the rows of both; sums about means, so nothing large cancels."""
        n, m = self.counts.to(self.mean.dtype), other.counts.to(self.mean.dtype)
        all_rows = (n + m).clamp(min=1)
        delta = other.mean - self.mean
        between = delta * (n * m / all_rows).sqrt()[:, None]
        return ClassMoments(
            self.counts + other.counts,
            self.mean + delta * (m / all_rows)[:, None],
            self.within + other.within + between.T @ between,
        )


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
    - ``nc2_orthogonal`` mean of |cosine| between class means as they are, not centred, and the same
      of weights: imbalanced training without bias ends in an orthogonal frame with lengths by class
      size (arXiv 2301.00437), of which the measures above say "not collapsed";
    - ``nc3`` squared Frobenius norm of W / \\|W\\| - M / \\|M\\| (0 to 4), ``nc3_product`` of
      W M^T / \\|W M^T\\| - E (not squared); ``nc3_uncentred`` mean over classes of the squared
      distance of w / |w| from m / |m|, m not centred (0 to 4).

    What is undefined is left out: all with fewer than two classes or with means that coincide;
    angles where a class mean lies in the middle; what needs weights without or with zero weights.

    Args:
        epsilon: relative rounding of the features. Directions in which class means differ by less
            are not inverted in ``nc1``.

    Raises:
        ValueError: weights that are not ``(C, D)``.
    """
    counts, mean, within = (part.detach().cpu() for part in moments)
    if head_weight is not None and head_weight.shape != mean.shape:
        raise ValueError(
            f"head_weight must be {tuple(mean.shape)}, found {tuple(head_weight.shape)}."
        )
    there = counts > 0
    n, centres = counts[there].double(), mean[there].double()
    classes = len(centres)
    if classes < 2:
        return {}
    share = n / n.sum() if global_mean == "rows" else torch.full_like(n, 1 / classes)
    m = centres - share @ centres
    # Roundings of features, as if independent, in the largest direction; those of our own sums.
    high, across = (math.sqrt(side) for side in m.shape)
    noise = epsilon * (1 / high + 1 / across)
    rounding = max(noise, max(m.shape) * torch.finfo(torch.float64).eps) * centres.norm()
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
        **_orthogonal(centres, "", float(rounding)),
    }
    if head_weight is not None:
        w = head_weight.detach().cpu()[there].double()
        if bool(w.isfinite().all()) and float(w.norm()) > 0:
            found |= _frame(w, "_weights", 0.0) | _orthogonal(w, "_weights", 0.0)
            lengths = torch.stack([w.norm(dim=1), centres.norm(dim=1)])
            if float(lengths[0].min()) > 0 and float(lengths[1].min()) > rounding:
                apart = w / lengths[0, :, None] - centres / lengths[1, :, None]
                found["nc3_uncentred"] = apart.square().sum(1).mean()
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


def _orthogonal(rows: Tensor, suffix: str, zero: float) -> dict[str, Tensor]:
    """Mean of |cosine| between rows; nothing where one is too short to have a direction."""
    norm = rows.norm(dim=1)
    if float(norm.min()) <= zero:
        return {}
    unit = rows / norm[:, None]
    i, j = torch.triu_indices(len(rows), len(rows), 1)
    return {f"nc2_orthogonal{suffix}": (unit @ unit.T)[i, j].abs().mean()}


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
