# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every calibration measure that the state of `StreamingCalibration` knows, by the name it logs."""

from __future__ import annotations

from torch import Tensor

from lightning_losses.metrics.calibration import bins as binned
from lightning_losses.metrics.calibration import fine_bins as fine
from lightning_losses.metrics.calibration import ranking, smooth


def measures(bins: binned.Bins, fine_bins: fine.FineBins) -> dict[str, Tensor]:
    """All measures of the confidence, as 0-dim tensors; the same keys always.

    Fractions in [0, 1], from equal-width bins: `ece`, `mce`, `rmsce`, `over`, `under`. From groups
    of equal mass: `ece_equal_mass`, `rmsce_equal_mass`, `mce_equal_mass`, and `ece_debiased` (the
    l2 error less what chance adds, so compare it with `rmsce_equal_mass`). Without bins: `ks`,
    `smece` (automatic width), `smece_fixed` (width 0.05, comparable over epochs). Ranking:
    `auroc_correctness`, `aurc`, `eaurc`, `augrc`. Also `accuracy` and `confidence` (means), and
    `gap`, their difference, in [-1, 1].

    Of the event "the prediction is right" the Brier score is `brier_confidence`; but for what
    confidences vary within a bin (`binned.brier_decomposition` has those two terms as well) it is
    `brier_reliability - brier_resolution + brier_uncertainty`.

    Counts (int64): `count` rows used, `mce_count` rows in the bin of `mce`.
    """
    rows = bins.rows.sum()
    worst, worst_count = binned.mce(bins)
    over, under = binned.over_under(bins)
    groups = fine.equal_mass(fine_bins, groups=len(bins.rows))
    brier = binned.brier_decomposition(bins)
    confidence, accuracy = bins.confidence.sum() / rows, bins.correct.sum() / rows
    return {
        "ece": binned.ece(bins),
        "mce": worst,
        "mce_count": worst_count,
        "rmsce": binned.rmsce(bins),
        "over": over,
        "under": under,
        "gap": confidence - accuracy,
        "ece_equal_mass": binned.ece(groups),
        "rmsce_equal_mass": binned.rmsce(groups),
        "mce_equal_mass": binned.mce(groups)[0],
        "ece_debiased": binned.debiased(groups),
        "ks": fine.ks(fine_bins),
        "smece": smooth.smece_auto(fine_bins)[0],
        "smece_fixed": smooth.smece(fine_bins),
        "auroc_correctness": ranking.auroc(fine_bins),
        "aurc": ranking.aurc(fine_bins),
        "eaurc": ranking.eaurc(fine_bins),
        "augrc": ranking.augrc(fine_bins),
        "brier_confidence": brier.brier,
        "brier_reliability": brier.reliability,
        "brier_resolution": brier.resolution,
        "brier_uncertainty": brier.uncertainty,
        "accuracy": accuracy,
        "confidence": confidence,
        "count": rows,
    }
