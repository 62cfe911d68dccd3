# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration of every class, or of every label, on its own: one binary event a column."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import bins as binned
from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.top_label import counting, refuse_labels


class ClasswiseCalibration(sums.SumMetric):
    """Calibration error of `p_k` against "it is k" for each of a few columns k, in constant memory.

    Column k of the probabilities is one binary event: class k of a softmax, or label k of several.
    With many classes most probabilities are near 0, where every model is calibrated, and the mean
    over classes tends to 0; hence the bound on their number. The state is `24 max_classes bins`
    bytes (36 kB by default), of one shape whatever was seen, so that processes can add theirs.

    Args:
        max_classes: the most columns that `update` takes.
        bins: equal-width bins `[lo, hi)` of each column, the last one closed.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: fewer than one class or bin.

    Examples:
        >>> metric = ClasswiseCalibration(max_classes=2)
        >>> metric.update(torch.tensor([[0.8, 0.2], [0.8, 0.2]]), torch.tensor([0, 1]))
        >>> metric.compute()["ece_per_class"]  # said 80 %, came half of the time
        tensor([0.3000, 0.3000], dtype=torch.float64)
    """

    edges: Tensor
    bin_count: Tensor
    bin_sums: Tensor
    skipped: Tensor

    def __init__(self, max_classes: int = 100, bins: int = 15, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if max_classes < 1 or bins < 1:
            raise ValueError(
                f"ClasswiseCalibration needs at least one class and one bin, found max_classes="
                f"{max_classes}, bins={bins}; write max_classes=100, bins=15"
            )
        self.max_classes = max_classes
        real = sums.sum_dtype(self.device)
        self.register_buffer("edges", binned.equal_width_edges(bins, real), persistent=False)
        self.add_sums(
            bin_count=((max_classes, bins), torch.int64),
            bin_sums=((2, max_classes, bins), real),  # probability, happened
            skipped=((), torch.int64),
        )

    def update(self, probabilities: Tensor, target: Tensor, valid: Tensor | None = None) -> None:
        """Add rows.

        Args:
            probabilities: `(N, K)`, K at most `max_classes`; an entry that is NaN or no probability
                does not count, and is counted in `skipped`.
            target: `(N,)` int64, the class of each row, in [0, K); or `(N, K)`, which labels apply
                (0 or 1).
            valid: `(N,)` or `(N, K)` bool, False where a row or a label does not count.

        Raises:
            ValueError: too many columns, or shapes that do not go together; on a CPU, labels that
                are neither 0 nor 1 and classes without a column, where `valid` does not leave them
                out. Elsewhere those do not count and are in `skipped`.
        """
        rows, columns = _shape(probabilities, self.max_classes)
        if target.shape not in ((rows,), (rows, columns)):
            raise ValueError(
                f"ClasswiseCalibration needs classes (N,) or labels (N, K) as target, found "
                f"probabilities {tuple(probabilities.shape)} and target {tuple(target.shape)}"
            )
        if valid is not None and valid.shape not in ((rows,), (rows, columns)):
            raise ValueError(
                f"valid must be (N,) or (N, K) as the probabilities {tuple(probabilities.shape)} "
                f"are, found {tuple(valid.shape)}"
            )
        if target.ndim == 1 and target.is_floating_point():
            raise ValueError(
                f"ClasswiseCalibration needs classes (N,) of integers, found {target.dtype}; write "
                "target.long()"
            )
        column = torch.arange(columns, device=probabilities.device)
        counts = torch.ones_like(probabilities, dtype=torch.bool)
        if valid is not None:
            wide = valid[:, None].expand_as(counts) if valid.ndim == 1 else valid
            counts = counting(wide, counts, "ClasswiseCalibration")
        if target.ndim == 1:
            happened = target[:, None] == column
            unclear = counts & ((target < 0) | (target >= columns))[:, None]
            if unclear.device.type == "cpu" and bool(unclear.any()):
                wrong = target[unclear.any(1)][0].item()
                raise ValueError(
                    f"ClasswiseCalibration got {columns} columns and class {wrong}: write valid="
                    "target >= 0 for rows that do not count, target - 1 for labels from 1"
                )
        else:
            happened = target == 1
            unclear = counts & ~happened & (target != 0)
            refuse_labels(unclear, target, "ClasswiseCalibration")
        p = probabilities.to(self.bin_sums.dtype)
        usable = (p >= -sums.SLACK) & (p <= 1 + sums.SLACK) & ~unclear  # False for NaN
        keep = counts & usable
        self.skipped = self.skipped + (counts & ~usable).sum()
        # As in StreamingCalibration: weight zero instead of dropping, and sums out of place.
        p = torch.where(keep, p, 0).clamp(0, 1)
        bins = self.bin_count.shape[1]
        where = column * bins + torch.bucketize(p, self.edges[1:-1], right=True)
        where = where.flatten()
        values = torch.stack([p.flatten(), (happened & keep).to(p).flatten()])
        count = self.bin_count.flatten().index_add(0, where, keep.long().flatten())
        self.bin_count = count.view_as(self.bin_count)
        total = self.bin_sums.flatten(1).index_add(1, where, values)
        self.bin_sums = total.view_as(self.bin_sums)

    def compute(self) -> dict[str, Tensor]:
        """The errors, all-reduced over processes; NaN where nothing was seen.

        `ece_per_class` `(max_classes,)`: calibration error of each column. `ece_classwise`: its
        mean over the columns seen (static calibration error, arXiv 1904.01685), 0-dim. `support`
        `(max_classes,)` int64: how often it was k; an error with little support is noise.
        `skipped`, 0-dim int64: entries that were no probability, or whose label said neither.
        """
        excess = (self.bin_sums[0] - self.bin_sums[1]).abs().sum(-1)
        rows = self.bin_count.sum(-1)
        per_class = excess / rows
        seen = rows > 0
        return {
            "ece_classwise": torch.where(seen, per_class, 0).sum() / seen.sum(),
            "ece_per_class": per_class,
            "support": self.bin_sums[1].sum(-1).round().long(),
            "skipped": self.skipped.clone(),
        }


def _shape(probabilities: Tensor, most: int) -> tuple[int, int]:
    if probabilities.ndim != 2 or probabilities.shape[1] > most:
        raise ValueError(
            f"ClasswiseCalibration needs probabilities (N, K) with K at most max_classes={most}, "
            f"found {tuple(probabilities.shape)}; write max_classes=K, or leave it out where "
            "classes are many"
        )
    return probabilities.shape[0], probabilities.shape[1]
