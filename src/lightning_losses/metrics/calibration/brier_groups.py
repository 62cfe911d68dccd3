# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The multiclass Brier score by what was predicted: which class's rows it is lost on."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.validation import class_rows


class BrierByPrediction(sums.SumMetric):
    """Decomposition of the multiclass Brier score, rows grouped by the class that was predicted.

    `brier = reliability - resolution + uncertainty + within_group_variance -
    within_group_covariance` exactly (Stephenson, Coelho and Jolliffe 2008, doi
    10.1175/2007WAF2006116.1, of vectors). TensorFlow Probability's `brier_decomposition` groups
    likewise, but leaves out the 1 of `|p - e_y|^2 = |p|^2 - 2 p_y + 1`, so that its uncertainty is
    ours minus 1 and negative, counts `within_group_variance` as reliability, and (version 0.25)
    subtracts class frequencies along the wrong axis in its resolution.

    The state is two matrices of `max_classes` squared, of one shape whatever was seen, so that
    processes can add theirs.

    Args:
        max_classes: the most columns that `update` takes.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: fewer than one class.

    Examples:
        >>> metric = BrierByPrediction(max_classes=2)
        >>> metric.update(torch.tensor([[0.8, 0.2]]).repeat(5, 1), torch.tensor([0, 0, 0, 0, 1]))
        >>> found = metric.compute()  # right as often as it said
        >>> [round(found[name].item(), 2) for name in ("brier", "reliability", "uncertainty")]
        [0.32, 0.0, 0.32]
    """

    happened: Tensor
    claimed: Tensor
    scores: Tensor
    skipped: Tensor

    def __init__(self, max_classes: int = 100, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_classes < 1:
            raise ValueError(
                f"BrierByPrediction needs at least one class, found max_classes={max_classes}; "
                "write max_classes=100"
            )
        self.max_classes = max_classes
        real = sums.sum_dtype(self.device)
        self.add_sums(
            happened=((max_classes, max_classes), torch.int64),  # predicted, then true class
            claimed=((max_classes, max_classes), real),  # sum of the probabilities
            scores=((2,), real),  # sum of |p|^2 and of p_y
            skipped=((), torch.int64),
        )

    def update(self, probabilities: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add rows.

        Args:
            probabilities: `(N, C)`, C at most `max_classes`; a row that holds a NaN or what is no
                probability does not count, and is counted in `skipped`.
            target: `(N,)` int64, the class of each row, in [0, C).
            valid: `(N,)` bool, False where a row does not count.

        Raises:
            ValueError: too many columns, or shapes that do not go together; on a CPU, classes
                without a column. Elsewhere those do not count and are in `skipped`.
        """
        rows = class_rows("BrierByPrediction", probabilities, target, valid, self.max_classes)
        p = rows.probabilities.to(self.claimed.dtype)
        predicted, classes = p.argmax(1), self.max_classes
        self.skipped = self.skipped + rows.skipped
        pairs = predicted * classes + rows.target
        count = self.happened.flatten().index_add(0, pairs, rows.keep.long())
        self.happened = count.view_as(self.happened)
        wide = torch.nn.functional.pad(p, (0, classes - p.shape[1]))
        self.claimed = self.claimed.index_add(0, predicted, wide)
        own = p.gather(1, rows.target[:, None])
        self.scores = self.scores + torch.stack([p.square().sum(), own.sum()])

    def compute(self) -> dict[str, Tensor]:
        """The five terms and their sum `brier`, in [0, 2], 0-dim; `skipped` int64.

        All-reduced over processes; NaN where nothing was seen.
        """
        table = self.happened.to(self.claimed)
        n, total = table.sum(1), table.sum()
        each = n.clamp(min=1)[:, None]
        claimed, happened = self.claimed / each, table / each
        base = table.sum(0) / total
        weight = n / total
        square, own = self.scores / total

        def mean(values: Tensor) -> Tensor:
            return (weight * values.sum(1)).sum()

        return {
            "brier": square - 2 * own + 1,
            "reliability": mean((claimed - happened).square()),
            "resolution": mean((happened - base).square()),
            "uncertainty": 1 - base.square().sum(),
            "within_group_variance": square - mean(claimed.square()),
            "within_group_covariance": 2 * (own - mean(claimed * happened)),
            "skipped": self.skipped.clone(),
        }
