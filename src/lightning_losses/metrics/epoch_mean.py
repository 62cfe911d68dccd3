# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`EpochMean`: the loss of a validation epoch, as one batch that held everything would have it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.sum_metric import SumMetric, sum_dtype
from lightning_losses.metrics.sync import GatherState


class EpochMean(SumMetric):
    """The sum over terms of (sum of numerators) / (sum of divisors), each times its weight.

    The sums run over all batches and ranks, so an epoch's value does not depend on how its rows
    were split, and a batch without a row that counts weighs nothing. Of several updates of one
    batch the last counts. A term that no sum over rows makes up (pairs, ratios of a whole batch)
    is averaged, weighted by what its batches count.

    Args:
        terms: their names.
        device: where the records are.
        group: of the ranks that hold other rows, see `distributed.over`.
    """

    higher_is_better: bool | None = False  # type: ignore[assignment]

    sums: Tensor
    last: Tensor

    def __init__(self, terms: Sequence[str], device: torch.device, group: Any = None) -> None:
        super().__init__(dist_sync_fn=GatherState(group))
        self.terms = tuple(terms)
        shape = (2, len(self.terms)), sum_dtype(device)
        # Of the batches before, and of the batch that may still be followed by another update.
        self.add_sums(sums=shape, last=shape)
        self.batch = -1
        self.weights: Tensor | None = None
        self.to(device)

    def update(
        self,
        numerators: Mapping[str, Tensor],
        divisors: Mapping[str, Tensor],
        weights: Mapping[str, Tensor],
        batch: int,
    ) -> None:
        """Count a batch; nothing waits for the device.

        Args:
            numerators: by term, 0-dim, without gradient.
            divisors: likewise; 0 is nothing to divide by.
            weights: of the terms in the value; those of the last batch hold.
            batch: tells the batches of an epoch apart.
        """
        now = [[part[name].to(self.sums) for name in self.terms] for part in (numerators, divisors)]
        if batch != self.batch:
            self.sums = self.sums + self.last
        self.last = torch.stack([torch.stack(row) for row in now])
        self.weights = torch.stack([weights[name] for name in self.terms]).to(self.sums)
        self.batch = batch

    def compute(self) -> Tensor:
        """0-dim; 0 where nothing counts."""
        numerators, divisors = self.sums + self.last
        means = numerators / torch.where(divisors == 0, 1, divisors)
        weighted: Tensor = means if self.weights is None else means * self.weights.to(means)
        return weighted.sum()

    def reset(self) -> None:
        """Begin another epoch."""
        super().reset()
        self.batch = -1
