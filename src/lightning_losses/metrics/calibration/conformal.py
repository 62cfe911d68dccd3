# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Split conformal prediction: sets and intervals that hold the truth as often as promised.

Vovk, Gammerman and Shafer 2005; Lei et al., "Distribution-Free Predictive Inference for
Regression", arXiv 1604.04173. The promise is for rows that are exchangeable with the held-out ones,
on average over all of them, whatever the model.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

from lightning_losses.metrics.calibration.sum_metric import SLACK, sum_dtype
from lightning_losses.metrics.calibration.validation import class_rows


def conformal_threshold(scores: Tensor, alpha: float = 0.1) -> Tensor:
    """The `ceil((n + 1) (1 - alpha))`-th smallest of `n` held-out scores, 0-dim.

    A new row's score is at most that with chance `1 - alpha` or a little more. +inf where n is too
    small to promise it (below `1 / alpha - 1` rows), which makes sets of all classes. Split
    conformal prediction (Vovk et al. 2005; arXiv 2107.07511).

    Args:
        scores: `(n,)`, how badly a row fits; larger is worse.
        alpha: allowed share of misses, in (0, 1).

    Raises:
        ValueError: scores that are not `(n,)` real numbers or hold a NaN; alpha outside (0, 1).

    Examples:
        >>> scores = torch.arange(1, 10) / 10
        >>> conformal_threshold(scores, alpha=0.2)
        tensor(0.8000)
        >>> conformal_threshold(scores, alpha=0.05)  # nine rows cannot promise 95 %
        tensor(inf)
    """
    if not 0 < alpha < 1:
        raise ValueError(f"alpha must be in (0, 1), found {alpha}; write 0.1 for 90 % coverage")
    if scores.ndim != 1 or not scores.is_floating_point() or bool(scores.isnan().any()):
        raise ValueError(
            f"conformal_threshold needs scores (n,) float without NaN, found {scores.dtype} "
            f"{tuple(scores.shape)}; leave out rows that do not count"
        )
    # 20 * 0.9 is 18, and (1 - 0.1) * 20 in floats must not become 19.
    rank = math.ceil((len(scores) + 1) * (1 - alpha) - 1e-9)
    if rank > len(scores):
        return scores.new_tensor(math.inf)
    return scores.detach().kthvalue(max(rank, 1)).values


def class_scores(probabilities: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
    """`1 - p_y` of the rows that count, `(n,)`: the score of a class under `prediction_sets`.

    Args:
        probabilities: `(N, C)`.
        target: `(N,)` int64.
        valid: `(N,)` bool.

    Raises:
        ValueError: rows or classes that are none.

    Examples:
        >>> class_scores(torch.tensor([[0.9, 0.1], [0.3, 0.7]]), torch.tensor([0, 0]))
        tensor([0.1000, 0.7000])
    """
    rows = class_rows("class_scores", probabilities, target, valid)
    return 1 - rows.probabilities.gather(1, rows.target[:, None]).squeeze(1)[rows.keep]


def prediction_sets(probabilities: Tensor, threshold: float | Tensor) -> Tensor:
    """Which classes are in the set of each row: those of `1 - p <= threshold`, `(N, C)` bool.

    Raises:
        ValueError: on a CPU, probabilities outside [0, 1] or a threshold that is NaN.

    Examples:
        >>> prediction_sets(torch.tensor([[0.9, 0.1], [0.55, 0.45]]), threshold=0.6)
        tensor([[ True, False],
                [ True,  True]])
    """
    p = probabilities
    if p.device.type == "cpu" and (
        bool(((p < -SLACK) | (p > 1 + SLACK)).any()) or float(threshold) != float(threshold)
    ):
        raise ValueError(
            f"prediction_sets needs probabilities in [0, 1] and a threshold, found "
            f"{float(p.min()):.6g} to {float(p.max()):.6g} and {float(threshold)}; write "
            "softmax(-1) of logits"
        )
    return 1 - probabilities <= threshold


def interval_scores(lower: Tensor, upper: Tensor, target: Tensor) -> Tensor:
    """`max(lower - y, y - upper)`, by how much a target is outside, negative inside; `(n,)`.

    Conformalised quantile regression, arXiv 1905.03222; with the mean as both bounds, the absolute
    residual.

    Args:
        lower: `(n,)`, in the unit of the target.
        upper: `(n,)`.
        target: `(n,)`.

    Raises:
        ValueError: shapes differ: one would be broadcast.

    Examples:
        >>> interval_scores(torch.zeros(2), torch.ones(2), torch.tensor([0.5, 1.25]))
        tensor([-0.5000,  0.2500])
    """
    if not lower.shape == upper.shape == target.shape:
        raise ValueError(
            f"interval_scores needs one shape for all, found lower {tuple(lower.shape)}, upper "
            f"{tuple(upper.shape)}, target {tuple(target.shape)}; write squeeze(1) for (N, 1)"
        )
    return torch.maximum(lower - target, target - upper)


def conformal_interval(
    lower: Tensor, upper: Tensor, threshold: float | Tensor
) -> tuple[Tensor, Tensor]:
    """Bounds moved out by the threshold of `interval_scores`; in where that is negative.

    Where a negative threshold would cross them, both are the middle. Conformalised quantile
    regression, arXiv 1905.03222.

    Args:
        lower: `(n,)` or any other shape, in the unit of the target.
        upper: the same.
        threshold: a number, 0-dim, or a shape that goes with theirs.

    Returns:
        The two bounds, of that shape.

    Examples:
        >>> conformal_interval(torch.tensor([1.0]), torch.tensor([2.0]), threshold=0.5)
        (tensor([0.5000]), tensor([2.5000]))
    """
    low, high = lower - threshold, upper + threshold
    middle = (lower + upper) / 2
    return torch.where(low <= high, low, middle), torch.where(low <= high, high, middle)


class ConformalThreshold(Metric):
    """`conformal_threshold` of the scores of an epoch, of all processes; these are kept, `(n,)`.

    Args:
        alpha: allowed share of misses, in (0, 1).
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: alpha outside (0, 1).

    Examples:
        >>> metric = ConformalThreshold(alpha=0.2)
        >>> metric.update(torch.tensor([0.1, 0.2, 0.3, 0.4, 0.5]))
        >>> metric.update(torch.tensor([0.6, 0.7, 0.8, 0.9]))
        >>> metric.compute()
        tensor(0.8000, dtype=torch.float64)
    """

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    scores: list[Tensor]

    def __init__(self, alpha: float = 0.1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        conformal_threshold(torch.zeros(1), alpha)  # complains of what is none
        self.alpha = alpha
        self.add_state("scores", [], dist_reduce_fx="cat")
        self.reset()

    def reset(self) -> None:
        """Forget all scores."""
        super().reset()
        # A process that has none must take part in the gather all the same.
        self.scores = [torch.zeros(0, dtype=sum_dtype(self.device), device=self.device)]

    def update(self, scores: Tensor, valid: Tensor | None = None) -> None:
        """Add scores `(N,)`, of rows that count.

        Raises:
            ValueError: as `conformal_threshold`, and a `valid` of another shape.
        """
        if valid is not None and valid.shape != scores.shape:
            raise ValueError(
                f"valid must be as scores {tuple(scores.shape)}, found {tuple(valid.shape)}"
            )
        kept = scores if valid is None else scores[valid.bool()]
        conformal_threshold(kept, self.alpha)
        self.scores.append(kept.detach().to(self.scores[0].dtype))

    def compute(self) -> Tensor:
        """The threshold, 0-dim; +inf without rows."""
        kept: list[Tensor] | Tensor = self.scores
        return conformal_threshold(torch.cat(kept) if isinstance(kept, list) else kept, self.alpha)
