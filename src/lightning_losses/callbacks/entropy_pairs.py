# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the entropy monitor makes of two numbers a row, in training steps and validation epochs."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.entropy_sketch import NAMES, SKETCH, merge, sketch
from lightning_losses.callbacks.marginal import is_class_index
from lightning_losses.callbacks.monitor import Monitor
from lightning_losses.metrics.token_covariance import (
    moments,
    pooled_covariance,
    pooled_difference,
)
from lightning_losses.record import LossRecord

#: From the `moments` of all ranks to what is logged.
PAIRS = {"nll_gap": pooled_difference, "token_covariance": pooled_covariance}


def pairs(record: LossRecord, supervised: bool) -> dict[str, Tensor]:
    """`moments` of NLL and H, and of advantage and log p, by the name that is logged.

    Nothing where there is no class index: log p is then none, or one of a soft target. In policy
    training the target is an action that was drawn, so NLL - H says nothing of calibration.
    """
    entropy, log_prob = record.stats.entropy, record.stats.log_prob
    if entropy is None or log_prob is None or not is_class_index(record.captured.get("target")):
        return {}
    advantage = record.captured.get("advantage")
    found = {"nll_gap": (-log_prob, entropy)} if supervised else {}
    if isinstance(advantage, Tensor) and advantage.shape == log_prob.shape:
        found["token_covariance"] = (advantage, log_prob)
    valid = record.stats.valid
    out = {}
    for name, (a, b) in found.items():
        use = a.isfinite() & b.isfinite()
        out[name] = moments(a, b, use if valid is None else use & valid)
    return out


def gathered(
    trainer: Trainer, record: LossRecord, entropy: Tensor, supervised: bool
) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    """The distribution of entropies and the `pairs` of all ranks, rows, and rows of NaN."""
    packed = sketch(entropy, record.stats.valid, SKETCH if trainer.world_size > 1 else None)
    own = pairs(record, supervised)
    told = torch.cat([packed, *own.values()])
    told = trainer.strategy.all_gather(told).reshape(-1, len(told))
    values, rows, bad = merge(told[:, : len(packed)])
    found = dict(zip(NAMES, values.unbind(), strict=True))
    for place, key in enumerate(own):
        begin = len(packed) + 4 * place
        found[key] = PAIRS[key](told[:, begin : begin + 4])
    return found, rows, bad


class ValidationGap(Monitor):
    """Takes NLL - H over validation epochs, all dataloaders together; the sanity check is skipped.

    A subclass writes `judge_gap`, has a ``name``, and watches entropy, log_prob and target.
    """

    name: str
    supervised: bool

    def __init__(self, every_n_steps: int) -> None:
        super().__init__(every_n_steps)
        self._validated: list[Tensor] | None = None

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no request with the objective, and no epoch half counted."""
        super().on_exception(trainer, pl_module, exception)
        self._validated = None

    def judge_gap(self, trainer: Trainer, gap: float) -> None:
        """Look at the gap of a validation epoch; every rank comes here."""
        raise NotImplementedError

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        if self.supervised and not trainer.sanity_checking:
            self._validated = []
            self.watch(pl_module, True)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count this batch."""
        record = None if self._validated is None else self.new_record(pl_module)
        if record is not None and self._validated is not None:
            self._validated += pairs(record, True).values()

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log and judge; nothing if no rank has seen a row with a class."""
        if self._validated is None:
            return
        self.watch(pl_module, False)
        parts = torch.stack([p.double() for p in self._validated or [torch.zeros(4)]])
        self._validated = None
        sums = torch.stack([parts[:, 0].sum(), pooled_difference(parts)])
        # float32: not every device has float64.
        gathered = trainer.strategy.all_gather(sums.float().to(pl_module.device)).reshape(-1, 2)
        rows = gathered[:, 0].sum()
        if not float(rows):
            return
        gap = (gathered.prod(1).sum() / rows).reshape(())
        self.log_dict(
            {f"{self.name}/val_nll_gap": gap},
            batch_size=1,
            sync_dist=True,  # equal already; without it Lightning advises to set it
            add_dataloader_idx=False,
        )
        self.judge_gap(trainer, float(gap))
