# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do the three residuals that `split_point` learned fit each other? Where not, the model is lost.

"Post-Hoc Split-Point Self-Consistency Verification", arXiv 2509.13262. Of any distribution split at
a point m with `E y = m`, the mean absolute residual v and the one-sided means above and below are
bound by `v (above + below) = 2 above below`. Heads that were fitted where there were data obey that
there; how far they do not is a measure of what the model does not know.
"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.metrics.regression.scores import same_shape


def split_point_discrepancy(
    residual: Tensor, above: Tensor, below: Tensor, root: bool = False
) -> Tensor:
    """`|2 above below - residual (above + below)|` of each entry: what the model does not know.

    In the squared unit of the target; the noise of the data is `above + below`.

    Args:
        residual: predicted mean of `|y - estimate|`, any shape.
        above: predicted mean of `y - estimate` where that is positive; the same shape.
        below: predicted mean of `estimate - y` where that is positive; the same shape.
        root: the square root instead, in the unit of the target: the authors have it in one
            experiment and not in another.

    Raises:
        ValueError: shapes differ.

    Examples:
        >>> above, below = torch.ones(2), torch.ones(2)
        >>> split_point_discrepancy(torch.tensor([1.0, 1.5]), above, below)
        tensor([0., 1.])
    """
    same_shape("split_point_discrepancy", residual=residual, above=above, below=below)
    gap = (2 * above * below - residual * (above + below)).abs()
    return gap.sqrt() if root else gap


def split_point_class_discrepancy(probabilities: Tensor, residual: Tensor) -> Tensor:
    """`sum_k |2 p_k (1 - p_k) - v_k|`, `(...)`: the same of classes, as 0 and 1 split at p.

    Args:
        probabilities: `(..., C)`.
        residual: `(..., C)`, predicted mean of `|1[y = k] - p_k|`.

    Raises:
        ValueError: shapes differ; on a CPU, probabilities outside [0, 1].

    Examples:
        >>> p = torch.tensor([[0.5, 0.5]])
        >>> split_point_class_discrepancy(p, torch.tensor([[0.5, 0.5]]))  # 2 p (1 - p): they fit
        tensor([0.])
        >>> split_point_class_discrepancy(p, torch.tensor([[0.1, 0.1]]))
        tensor([0.8000])
    """
    same_shape("split_point_class_discrepancy", probabilities=probabilities, residual=residual)
    p = probabilities
    if p.device.type == "cpu" and bool(((p < -1e-2) | (p > 1 + 1e-2)).any()):
        raise ValueError(
            "split_point_class_discrepancy needs probabilities in [0, 1], found "
            f"{float(p.min()):.6g} to {float(p.max()):.6g}; write softmax(-1) of logits"
        )
    return split_point_discrepancy(residual, 1 - p, p).sum(-1)


def split_point_scale(
    residual: Tensor, above: Tensor, below: Tensor, most: float = 10.0
) -> tuple[Tensor, Tensor]:
    """By how much to widen the upper and the lower half of an interval, each in [1, most].

    `residual below / ((2 below - residual) above)` and the same with the sides exchanged: 1 where
    the three fit each other, more where the residual is larger than the sides allow. Where a
    denominator is 0 or negative no width is enough, and the factor is `most` (the authors' code
    divides, and a negative quotient becomes 1).

    Args:
        residual: predicted mean of `|y - estimate|`, `(N,)` or any other shape.
        above: predicted mean of `y - estimate` where that is positive; the same shape.
        below: predicted mean of `estimate - y` where that is positive; the same shape.
        most: the largest factor, at least 1.

    Returns:
        The factors of the upper and of the lower half, of that shape.

    Raises:
        ValueError: shapes differ; `most` below 1; on a CPU, a negative mean.

    Examples:
        >>> upper, lower = split_point_scale(torch.tensor([1.0, 1.5]), torch.ones(2), torch.ones(2))
        >>> upper
        tensor([1., 3.])
    """
    same_shape("split_point_scale", residual=residual, above=above, below=below)
    if not most >= 1:
        raise ValueError(f"most must be at least 1, found {most}; write 10.0")
    for name, mean in (("residual", residual), ("above", above), ("below", below)):
        if mean.device.type == "cpu" and bool((mean < 0).any()):
            raise ValueError(
                f"{name} must be at least 0, found {float(mean.min()):.6g}; write softplus of what "
                "the head says"
            )

    def factor(own: Tensor, other: Tensor) -> Tensor:
        room = (2 * other - residual) * own
        ratio = residual * other / torch.where(room > 0, room, 1)
        return torch.where(room > 0, ratio, most).clamp(1, most)

    return factor(above, below), factor(below, above)
