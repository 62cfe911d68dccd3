# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`EpochMonitor`: the life of a callback that counts over whole validation and test epochs."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer

from lightning_losses.callbacks.base.monitor import RecordReader


class EpochMonitor(RecordReader):
    """Starts, adds every batch and reports; the sanity check is skipped.

    A subclass writes `start`, `add` and `report`. The last ``compute_loss`` of a step counts.
    """

    def start(self, module: LightningModule, dataloaders: int) -> None:
        """Forget the last epoch, and have the records carry what is read here."""
        raise NotImplementedError

    def add(self, module: LightningModule, dataloader_idx: int) -> None:
        """Count the rows of the record that this batch left behind."""
        raise NotImplementedError

    def report(self, trainer: Trainer, module: LightningModule, stage: str) -> None:
        """Say what was counted; every rank comes here. Stops the records from carrying more."""
        raise NotImplementedError

    # -- when: confidence on data that is being fitted says little, so training is left out ------

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin, unless this is the sanity check."""
        if not trainer.sanity_checking:
            self.start(pl_module, len(trainer.num_val_batches))

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
        if not trainer.sanity_checking:
            self.add(pl_module, dataloader_idx)

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log this epoch."""
        if not trainer.sanity_checking:
            self.report(trainer, pl_module, "val")

    def on_test_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begin."""
        self.start(pl_module, len(trainer.num_test_batches))

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Count this batch."""
        self.add(pl_module, dataloader_idx)

    def on_test_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Log this epoch."""
        self.report(trainer, pl_module, "test")
