# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What ranks must do together to measure neural collapse."""

from __future__ import annotations

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.every_kth import EveryKth
from lightning_losses.metrics.class_moments import nearest_centre
from lightning_losses.metrics.neural_collapse import NeuralCollapse


def same_metric(
    trainer: Trainer, metric: NeuralCollapse | None, device: torch.device
) -> NeuralCollapse | str | None:
    """The metric, an empty one on a rank that saw no rows; None if no rank saw any.

    Every rank must come here. A text says what is wrong: sizes that differ between ranks.
    """
    sizes = [0, 0] if metric is None else [metric.classes, metric.features]
    if trainer.world_size > 1:
        own = torch.tensor(sizes, device=trainer.strategy.root_device)
        every = trainer.strategy.all_gather(own).reshape(-1, 2)
        sizes = every.amax(0).tolist()
        seen = every[every[:, 0] > 0]
        if bool((seen != seen[:1]).any()):
            return "ranks have features of different shapes, so nothing is measured."
    if metric is None and sizes[0]:
        metric = NeuralCollapse(sizes[0], sizes[1]).to(device)
        nothing = torch.zeros(0, sizes[1], device=device)
        metric.update(nothing, nothing[:, 0].long())  # or torchmetrics warns
    return metric


def mismatch(trainer: Trainer, sample: EveryKth, mean: Tensor, count: Tensor) -> Tensor:
    """NC4 of the kept ``(features, prediction)`` of all ranks, which must all come here.

    The fraction whose prediction is not the class of the nearest mean, 0-dim float64.
    """
    rows = torch.zeros(2, dtype=mean.dtype, device=mean.device)
    for features, prediction in sample.parts():
        nearest = nearest_centre(features.to(mean.device), mean, count)
        rows[0] += (nearest != prediction.to(mean.device)).sum()
        rows[1] += len(prediction)
    if trainer.world_size > 1:
        rows = trainer.strategy.all_gather(rows).reshape(-1, 2).sum(0)
    return rows[0] / rows[1].clamp(min=1)
