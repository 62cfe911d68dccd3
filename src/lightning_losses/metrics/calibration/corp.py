# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Brier score split without bins: against the best non-decreasing recalibration (CORP)."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_losses.metrics.calibration.bins import Bins
from lightning_losses.metrics.calibration.fine_bins import FineBins
from lightning_losses.metrics.calibration.isotonic_means import isotonic_means

#: Most fine bins; the fit takes that many squared numbers.
MOST_BINS = 4096


class CORP(NamedTuple):
    """`brier = miscalibration - discrimination + uncertainty`, exactly; 0-dim tensors."""

    brier: Tensor
    """`mean (c - a)^2` of the event "the prediction is right", in [0, 1]."""
    miscalibration: Tensor
    """What the best non-decreasing map of the confidence would gain, at least 0."""
    discrimination: Tensor
    """What the confidence, so mapped, gains over the base rate, at least 0."""
    uncertainty: Tensor
    """`a (1 - a)` of the base rate: nothing that the model can help."""


def brier_corp(bins: Bins, fine: FineBins) -> CORP:
    """CORP decomposition (Dimitriadis, Gneiting and Jordan 2021, arXiv 2008.03033).

    The reference is isotonic regression, so that no bins are to be chosen, and there is no within-
    bin remainder as in `brier_decomposition`. `brier` and `uncertainty` are exact; the order of
    rows inside a fine bin is lost, which takes at most `sum_b e_b (n_b - e_b) / n_b / N` from both
    other terms, for `e_b` wrong ones of the `n_b` rows of a bin. NaN without rows.

    Args:
        bins: `StreamingCalibration.bins`.
        fine: its `fine_bins`, at most 4096.

    Raises:
        ValueError: more fine bins.

    Examples:
        >>> metric = StreamingCalibration()
        >>> metric.update(torch.tensor([0.9, 0.9, 0.6, 0.6]), torch.tensor([1, 1, 1, 0]))
        >>> found = brier_corp(metric.bins, metric.fine_bins)
        >>> {name: round(value.item(), 3) for name, value in found._asdict().items()}
        {'brier': 0.135, 'miscalibration': 0.01, 'discrimination': 0.062, 'uncertainty': 0.188}
    """
    if len(fine.rows) > MOST_BINS:
        raise ValueError(
            f"brier_corp needs at most {MOST_BINS} fine bins, found {len(fine.rows)}; write "
            "StreamingCalibration(fine_bins=1024)"
        )
    total = bins.rows.sum()
    brier = (bins.confidence_squared - 2 * bins.confidence_correct + bins.correct).sum() / total
    rate = bins.correct.sum() / total
    fitted = isotonic_means(fine.correct, fine.rows)
    # The least-squares fit has mean (g - a)^2 = mean a - mean g^2, since sums of g a and g^2 agree.
    recalibrated = (fine.correct - fine.rows * fitted.square()).sum() / total
    uncertainty = rate * (1 - rate)
    return CORP(
        brier=brier,
        miscalibration=(brier - recalibrated),
        discrimination=(uncertainty - recalibrated).clamp(min=0),
        uncertainty=uncertainty,
    )
