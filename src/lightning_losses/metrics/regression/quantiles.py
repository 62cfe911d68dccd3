# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Quantiles of several models made one, and quantiles that cross put in order."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.isotonic_means import isotonic_means
from lightning_losses.metrics.regression.scores import refuse


def aggregate_quantiles(quantiles: Tensor, weight: Tensor) -> Tensor:
    """Weighted mean of the quantiles of M models, `(..., Q)`, level by level.

    Fakoor et al., "Flexible Model Aggregation for Quantile Regression", arXiv 2103.00083, whose
    weights go from one number a model to one a model, level and row. Not in order by itself where
    weights differ by level: see `sort_quantiles` and `isotonic_quantiles`.

    Args:
        quantiles: `(..., M, Q)`, models before levels.
        weight: `(M,)`, one a model; `(M, Q)`, one a model and level; or `(..., M, Q)`. At least 0,
            and summing to 1 over models: write `softmax` of what is learned.

    Raises:
        ValueError: shapes that do not go together; on a CPU, weights that are no shares.

    Examples:
        >>> models = torch.tensor([[0.0, 1.0, 2.0], [2.0, 3.0, 8.0]])
        >>> aggregate_quantiles(models, torch.tensor([0.5, 0.5]))
        tensor([1., 2., 5.])
    """
    if quantiles.ndim < 2:
        raise ValueError(f"quantiles must be (..., M, Q), found {tuple(quantiles.shape)}")
    models = quantiles.shape[-2]
    wide = weight[:, None] if weight.ndim == 1 else weight
    if wide.ndim < 2 or (
        wide.shape[-2] != models
        or wide.shape[-1] not in (1, quantiles.shape[-1])
        or (wide.ndim > 2 and wide.shape[:-2] != quantiles.shape[:-2])
    ):
        raise ValueError(
            f"weight must be (M,), (M, Q) or (..., M, Q) for quantiles {tuple(quantiles.shape)}, "
            f"found {tuple(weight.shape)}"
        )
    if weight.device.type == "cpu" and weight.numel():
        total = wide.detach().sum(-2)
        if bool((wide < 0).any()) or bool(((total - 1).abs() > 1e-2).any()):
            raise ValueError(
                "weights must be at least 0 and sum to 1 over models, found a least one of "
                f"{float(weight.min()):.4g} and sums from {float(total.min()):.4g} to "
                f"{float(total.max()):.4g}; write weight.softmax(0), or weight / weight.sum(0)"
            )
    return (wide * quantiles).sum(-2)


def sort_quantiles(quantiles: Tensor) -> Tensor:
    """`(..., Q)` in increasing order: the rearrangement of Chernozhukov et al., arXiv 0704.3649.

    Its mean pinball loss over evenly weighed levels is at most that of the crossing ones, row by
    row. Gradients follow the values.

    Examples:
        >>> sort_quantiles(torch.tensor([1.0, 3.0, 2.0]))
        tensor([1., 2., 3.])
    """
    return quantiles.sort(-1).values


def isotonic_quantiles(quantiles: Tensor, weight: Tensor | None = None) -> Tensor:
    """The nearest `(..., Q)` that does not decrease, in (weighted) squares: isotonic regression.

    Its pinball loss is at most that of the crossing quantiles as well (arXiv 2103.00083), and where
    sorting swaps values, this averages them. With gradient; takes Q^2 numbers a row.

    Args:
        quantiles: `(..., Q)`.
        weight: `(Q,)` of the levels, positive.

    Raises:
        ValueError: a weight of another shape; on a CPU, weights that are not positive and infinite
            quantiles. A NaN makes its row NaN.

    Examples:
        >>> isotonic_quantiles(torch.tensor([1.0, 3.0, 2.0]))
        tensor([1.0000, 2.5000, 2.5000])
    """
    w = quantiles.new_ones(quantiles.shape[-1]) if weight is None else weight.to(quantiles)
    if w.shape != quantiles.shape[-1:]:
        raise ValueError(
            f"weight must be ({quantiles.shape[-1]},), one a level, found {tuple(w.shape)}"
        )
    refuse(w <= 0, "weights of levels must be positive")
    refuse(quantiles.isinf(), "quantiles must be finite: leave out the levels of infinite bounds")
    return isotonic_means(quantiles * w, w)


def crossings(quantiles: Tensor) -> Tensor:
    """How many neighbouring levels of each row are in the wrong order, `(...)` int64."""
    return (torch.diff(quantiles, dim=-1) < 0).sum(-1)
