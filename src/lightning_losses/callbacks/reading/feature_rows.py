# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`feature_rows`: the feature vectors of a record with their classes."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from lightning_losses.record import LossRecord

#: What a callback watches to use `feature_rows`.
FEATURES = ("features", "hidden", "target")


class FeatureRows(NamedTuple):
    """One batch, without graph."""

    features: Tensor  # (N, D) float
    target: Tensor | None  # (N,) int64 class indices; None if the step has none
    valid: Tensor | None  # (N,) bool; None if every row counts

    def counted(self) -> tuple[Tensor, Tensor | None]:
        """Features and target of the rows that count and are finite."""
        keep = self.features.isfinite().all(1)
        if self.valid is not None:
            keep = keep & self.valid
        return self.features[keep], None if self.target is None else self.target[keep]


def feature_rows(record: LossRecord) -> FeatureRows | str:
    """``features`` of a record, or ``hidden`` if the step passed none; or what is missing."""
    features = record.captured.get("features")
    if not isinstance(features, Tensor):
        features = record.captured.get("hidden")
    if not isinstance(features, Tensor) or not features.is_floating_point() or features.ndim < 2:
        return (
            "this step passes no features, so nothing is measured. Write "
            "self.compute_loss(logits=..., target=..., features=h), h (B, D) before the head."
        )
    target = record.captured.get("target")
    if features.numel() and len(features) != record.num_rows:
        features = features.reshape(-1, features.shape[-1])  # (B, T, D), a row a position
    if len(features) != record.num_rows:
        return (
            f"features has {len(features)} rows and the step {record.num_rows}, so nothing is "
            "measured. Pass one feature vector a row."
        )
    if not isinstance(target, Tensor) or target.ndim != 1 or target.is_floating_point():
        target = None
    return FeatureRows(features.flatten(1), target, record.stats.valid)
