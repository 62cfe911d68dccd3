# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Is the model as often right as it says? Calibration of any number of rows in constant memory."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration import bins as binned
from lightning_losses.metrics.calibration import fine_bins as fine
from lightning_losses.metrics.calibration import sum_metric as sums
from lightning_losses.metrics.calibration.measures import measures
from lightning_losses.metrics.calibration.top_label import (
    TopLabel,
    counting,
    refuse_labels,
    top_label,
)

__all__ = ["StreamingCalibration", "TopLabel", "top_label"]


class StreamingCalibration(sums.SumMetric):
    """Calibration of confidences against correctness, from sums a bin instead of stored rows.

    The state is about 25 kB however many rows pass, and reducing it over processes is a sum.
    `update` never waits for the device. Bins are `[lo, hi)`, the last one closed.

    For classes, feed it `top_label(logits, target)`; for binary events, `binary_event(logits,
    target)`; for several labels a row either all in one (`binary_event` flattens them: micro) or
    label by label in `ClasswiseCalibration`.

    Args:
        bins: number of equal-width bins of `ece`, `mce`, `rmsce`, the Brier parts and the
            reliability diagram, and number of groups of the equal-mass errors.
        fine_bins: size of the histogram behind what needs sorted rows: the equal-mass errors, `ks`,
            `smece`, `auroc_correctness`, `aurc`, `augrc`, each within a bound that its function in
            `metrics/fine.py`, `smooth.py` and `ranking.py` states. All else is exact.
        **kwargs: passed to `torchmetrics.Metric`.

    Raises:
        ValueError: fewer than one bin.

    Examples:
        >>> metric = StreamingCalibration()
        >>> metric.update(*top_label(torch.tensor([[2.0, 0.0], [0.0, 1.0]]), torch.tensor([0, 0])))
        >>> round(metric.compute()["gap"].item(), 3)
        0.306
    """

    edges: Tensor
    fine_edges: Tensor
    bin_count: Tensor
    bin_sums: Tensor
    fine_count: Tensor
    fine_sums: Tensor
    score_count: Tensor
    score_sums: Tensor
    nan_rows: Tensor

    def __init__(self, bins: int = 15, fine_bins: int = 1024, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if bins < 1 or fine_bins < 1:
            raise ValueError(
                f"StreamingCalibration needs at least one bin, found bins={bins}, "
                f"fine_bins={fine_bins}; write bins=15, fine_bins=1024"
            )
        real = sums.sum_dtype(self.device)
        self.register_buffer("edges", binned.equal_width_edges(bins, real), persistent=False)
        self.register_buffer("fine_edges", fine.arcsine_edges(fine_bins, real), persistent=False)
        self.add_sums(
            bin_count=((bins,), torch.int64),
            bin_sums=((4, bins), real),  # confidence, correct, confidence^2, confidence correct
            fine_count=((fine_bins,), torch.int64),
            fine_sums=((2, fine_bins), real),  # confidence, correct
            score_count=((2,), torch.int64),  # nll, Brier: counted apart, both are optional
            score_sums=((2,), real),
            nan_rows=((), torch.int64),
        )

    def update(
        self,
        confidence: Tensor,
        correct: Tensor,
        nll: Tensor | None = None,
        brier: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> None:
        """Add rows. All arguments have one shape, `(N,)` or any other that flattens to it.

        A row with a NaN, with a confidence that is no probability or a Brier score outside [0, 2],
        is left out of everything and counted in `nan_rows`. An infinite nll is a fact about the
        model and is kept.

        Args:
            confidence: probability of the predicted class (or of a binary event), in [0, 1].
            correct: whether the prediction was right (or the event happened), 1 or 0 of any dtype.
            nll: negative log-probability of the target, nats.
            brier: multiclass Brier score of the row, in [0, 2].
            valid: False marks rows that do not count at all.

        Raises:
            ValueError: shapes differ; on a CPU, what is neither 1 nor 0 in `correct` or `valid`.
                Elsewhere rows with such a `correct` are counted in `nan_rows`.
        """
        given = {"correct": correct, "nll": nll, "brier": brier, "valid": valid}
        for name, tensor in given.items():
            if tensor is not None and tensor.shape != confidence.shape:
                raise ValueError(
                    f"update needs one shape for all arguments, found confidence "
                    f"{tuple(confidence.shape)} and {name} {tuple(tensor.shape)}; write one value"
                    " per row in each (top_label makes them from logits)"
                )
        real = self.bin_sums.dtype
        if confidence.is_complex():
            raise ValueError(f"confidence must be real numbers, found {confidence.dtype}")
        c = confidence.flatten().to(real)
        usable = (c >= -sums.SLACK) & (c <= 1 + sums.SLACK)  # False for NaN
        scores = [None if s is None else s.flatten().to(real) for s in (nll, brier)]
        for score in scores:
            if score is not None:
                usable = usable & ~score.isnan()
        if scores[1] is not None:
            usable = usable & (scores[1] >= -sums.SLACK) & (scores[1] <= 2 + sums.SLACK)
        counts = counting(valid, confidence, "StreamingCalibration").flatten()
        right = correct.flatten() == 1
        unclear = counts & ~right & (correct.flatten() != 0)
        refuse_labels(unclear, correct.flatten(), "StreamingCalibration")
        usable = usable & ~unclear
        # Rows are masked by weight zero, not dropped: dropping would wait for the device to say how
        # many are left. bincount would wait as well, index_add does not. All sums are out of place
        # because torchmetrics keeps references to the previous ones while it syncs.
        keep = counts & usable
        c = torch.where(keep, c, 0).clamp(0, 1)
        a = (right & keep).to(real)
        weight = keep.long()
        coarse_bin = torch.bucketize(c, self.edges[1:-1], right=True)
        fine_bin = torch.bucketize(c, self.fine_edges[1:-1], right=True)
        products = torch.stack([c, a, c * c, c * a])
        self.bin_count = self.bin_count.index_add(0, coarse_bin, weight)
        self.bin_sums = self.bin_sums.index_add(1, coarse_bin, products)
        self.fine_count = self.fine_count.index_add(0, fine_bin, weight)
        self.fine_sums = self.fine_sums.index_add(1, fine_bin, products[:2])
        nothing = torch.zeros_like(c)
        self.score_sums = self.score_sums + torch.stack(
            [nothing.sum() if s is None else torch.where(keep, s, nothing).sum() for s in scores]
        )
        self.score_count = self.score_count + torch.stack(
            [weight.sum() * (s is not None) for s in scores]
        )
        self.nan_rows = self.nan_rows + (counts & ~usable).sum()

    def compute(self) -> dict[str, Tensor]:
        """Every measure as a 0-dim tensor; the same keys always, all-reduced over processes.

        Those of `metrics/measures.py`, and: `nll` in nats, `brier` (multiclass) in [0, 2],
        `nan_rows` (int64), how many rows were left out.

        What nothing is known about is NaN: all of them (beside counts) without rows, `nll` and
        `brier` when none were given, `auroc_correctness` when accuracy is 0 or 1, `ece_debiased`
        without a group of two rows. Never raises.
        """
        nll, brier = self.score_sums / self.score_count
        return measures(self.bins, self.fine_bins) | {
            "nll": nll,
            "brier": brier,
            "nan_rows": self.nan_rows,
        }

    def reliability(self) -> dict[str, Tensor]:
        """Reliability diagram, `(bins,)` each: `lower`, `upper`, `count`, `confidence`, `accuracy`.

        Confidence and accuracy of an empty bin are NaN. Reduces over processes as `compute` does,
        so every process has to call it.
        """
        synced = self._is_synced
        with self.sync_context(
            dist_sync_fn=self.dist_sync_fn,
            should_sync=self._to_sync and not synced,
            should_unsync=self._should_unsync and not synced,
        ):
            bins = self.bins
            return {
                "lower": self.edges[:-1].clone(),
                "upper": self.edges[1:].clone(),
                "count": bins.rows.clone(),
                "confidence": bins.confidence / bins.rows,
                "accuracy": bins.correct / bins.rows,
            }

    @property
    def bins(self) -> binned.Bins:
        """This process's bin sums, for the functions of `metrics/binned.py`."""
        return binned.Bins(self.bin_count, *self.bin_sums)

    @property
    def fine_bins(self) -> fine.FineBins:
        """This process's fine histogram, for the functions of `metrics/fine.py` and others."""
        return fine.FineBins(self.fine_count, *self.fine_sums)
