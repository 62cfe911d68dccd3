# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The feature vectors of a record with their classes, and rows of all ranks in one tensor."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_losses.callbacks.reading.stride_sample import EveryKth
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


def kept_rows(trainer: Trainer, kept: EveryKth) -> tuple[Tensor, Tensor] | str:
    """Float rows ``(N, D)`` and integers ``(N,)`` kept by all ranks, at most ``max_rows`` of them.

    Every rank must come here, with or without rows. On the CPU, float64. A text says what is
    wrong: rows of different lengths.
    """
    parts = kept.parts()
    widths = sorted({rows.shape[1] for rows, _ in parts})
    wide = torch.tensor([[min(widths, default=-1), max(widths, default=-1)]])
    wide = _gather(trainer, wide)
    widths = sorted(set(wide[wide >= 0].tolist()))
    if len(widths) > 1:
        return f"rows of an epoch have different lengths, {widths[0]} to {widths[-1]}"
    empty = torch.zeros(0, widths[0] if widths else 0, dtype=torch.float64)
    rows = _gather(trainer, torch.cat([empty, *(part[0].double() for part in parts)]))
    target = _gather(trainer, torch.cat([torch.zeros(0).long(), *(p[1].long() for p in parts)]))
    every = max(1, math.ceil(len(rows) / kept.max_rows))
    return rows[::every], target[::every]


def _gather(trainer: Trainer, rows: Tensor) -> Tensor:
    """Rows ``(n, ...)`` of all ranks, in rank order; n may differ."""
    if trainer.world_size == 1:
        return rows
    parts = gather_all_tensors(rows.contiguous().to(trainer.strategy.root_device))
    return torch.cat([part.cpu() for part in parts])
