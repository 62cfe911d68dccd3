# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Out-of-distribution scores of rows: the higher, the more a row is like the training data."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torchmetrics.functional.classification import binary_auroc


def energy_score(logits: Tensor, temperature: float = 1.0) -> Tensor:
    """``T logsumexp(z / T)``, minus the free energy, ``(N,)`` of logits ``(N, C)``.

    Liu et al., "Energy-based Out-of-distribution Detection", arXiv 2010.03759.
    """
    if not temperature > 0:
        raise ValueError(f"temperature must be positive, got {temperature}.")
    score: Tensor = temperature * (logits / temperature).logsumexp(1)
    return score


def mahalanobis_score(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """``max_c -(x - mu_c)^T P (x - mu_c) / 2``, ``(N,)``, one precision for all classes.

    Lee et al., "A Simple Unified Framework for Detecting Out-of-Distribution Samples", arXiv
    1807.03888.

    Args:
        features: ``(N, D)``.
        means: ``(C, D)``.
        precision: ``(D, D)``, symmetric.
    """
    score: Tensor = (-_squared(features, means, precision) / 2).amax(1)
    return score


def gmm_score(features: Tensor, means: Tensor, precision: Tensor, log_prior: Tensor) -> Tensor:
    """Log-density ``(N,)`` of a mixture of Gaussians with one precision, in nats.

    Args:
        features, means, precision: as of `mahalanobis_score`.
        log_prior: ``(C,)`` log of the shares of the classes.
    """
    squared = _squared(features, means, precision)
    constant = torch.linalg.slogdet(precision)[1] - means.shape[1] * math.log(2 * math.pi)
    density: Tensor = (log_prior - squared / 2 + constant / 2).logsumexp(1)
    return density


class ClassGaussians:
    """Means of classes and the precision of what is left, from features of training rows.

    In float64. The covariance is that of class-centred features (biased); where there are more
    features than rows, or some are constant, it has no inverse: ``shrinkage`` moves it towards the
    mean of its diagonal.

    Args:
        features: ``(N, D)``.
        target: ``(N,)`` class indices; rows with a negative one are left out.
        shrinkage: from 0 (none) to 1.

    Raises:
        ValueError: no rows, or a covariance without inverse.
    """

    def __init__(self, features: Tensor, target: Tensor, shrinkage: float = 1e-3) -> None:
        if not 0 <= shrinkage <= 1:
            raise ValueError(f"shrinkage must be from 0 to 1, got {shrinkage}.")
        x, y = features[target >= 0].double(), target[target >= 0]
        if not len(x):
            raise ValueError("Gaussians of classes need rows with a class, got none.")
        classes, y = y.unique(return_inverse=True)  # type: ignore[no-untyped-call]
        count = torch.bincount(y, minlength=len(classes)).to(x.dtype)
        self.means = x.new_zeros(len(classes), x.shape[1]).index_add(0, y, x) / count[:, None]
        self.log_prior = (count / count.sum()).log()
        left = x - self.means[y]
        covariance = left.t() @ left / len(x)
        level = covariance.diagonal().mean()
        eye = torch.eye(len(covariance), dtype=x.dtype, device=x.device)
        covariance = (1 - shrinkage) * covariance + shrinkage * level * eye
        factor, failed = torch.linalg.cholesky_ex(covariance)
        if int(failed):
            raise ValueError(
                f"The covariance of {len(x)} rows of {x.shape[1]} features has no inverse: write a "
                "larger shrinkage, or pass more rows."
            )
        self.precision = torch.cholesky_inverse(factor)

    def mahalanobis(self, features: Tensor) -> Tensor:
        """`mahalanobis_score` of features ``(N, D)``."""
        return mahalanobis_score(features.double(), self.means, self.precision)

    def log_density(self, features: Tensor) -> Tensor:
        """`gmm_score` of features ``(N, D)``."""
        return gmm_score(features.double(), self.means, self.precision, self.log_prior)


def auroc(inside: Tensor, outside: Tensor) -> Tensor:
    """Chance that a row inside has a higher score than one outside; equal ones count half.

    Scores ``(N,)`` and ``(M,)``, the higher the more inside; 0-dim.
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"Scores of both sides are needed, got {len(inside)}, {len(outside)}.")
    # By ranks, as numbers between 0 and 1: of others torchmetrics takes the sigmoid, which is 1 for
    # all that is above 40.
    _, rank = torch.cat([inside, outside]).unique(return_inverse=True)  # type: ignore[no-untyped-call]
    label = (torch.arange(len(rank), device=rank.device) < len(inside)).long()
    area: Tensor = binary_auroc(rank.double() / rank.max().clamp(min=1), label)
    return area.double()


def fpr_at_tpr(inside: Tensor, outside: Tensor, tpr: float = 0.95) -> Tensor:
    """Share of outside rows that pass the threshold which ``tpr`` of the inside rows pass.

    Scores ``(N,)`` and ``(M,)``, the higher the more inside; 0-dim; 0.95 is FPR95.
    """
    if not len(inside) or not len(outside):
        raise ValueError(f"Scores of both sides are needed, got {len(inside)}, {len(outside)}.")
    ranked = inside.sort(descending=True).values
    threshold = ranked[min(len(ranked), math.ceil(tpr * len(ranked))) - 1]
    return (outside >= threshold).double().mean()


def _squared(features: Tensor, means: Tensor, precision: Tensor) -> Tensor:
    """Squared Mahalanobis distances ``(N, C)``, without a third axis."""
    px, pm = features @ precision, means @ precision
    own = (px * features).sum(1, keepdim=True)
    return own - 2 * features @ pm.t() + (pm * means).sum(1)
