# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Monitor`: the life of a callback that reads loss records and changes nothing."""

from __future__ import annotations

from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord


class RecordReader(Callback):
    """Finds the objective, asks it to keep what is read, and speaks once of what it cannot read."""

    watches: ClassVar[tuple[str, ...]] = ()
    """Statistics and named tensors that this callback reads from records."""

    log_dict: Any  # Lightning gives it to callbacks

    def __init__(self) -> None:
        self._said: set[str] = set()
        self._seen: LossRecord | None = None

    def say_once(self, message: str) -> None:
        """A monitor that cannot measure says so, once, and never stops the run."""
        if message not in self._said:
            self._said.add(message)
            rank_zero_warn(f"{type(self).__name__}: {message}")

    def objective(self, module: LightningModule) -> Objective | None:
        """The objective that the module trains on, or None, having said why."""
        found = getattr(module, "loss", None)
        if isinstance(found, Objective):
            return found
        self.say_once(
            f"{type(module).__name__}.loss is {type(found).__name__}, not an Objective, so there "
            "are no records to read. Use LossMixin and self.loss = build_objective('ce')."
        )
        return None

    def watch(self, module: LightningModule, on: bool) -> None:
        """Ask the objective to keep what this callback reads, or to stop keeping it."""
        objective = self.objective(module)
        if objective is not None:
            objective.watch(self.state_key, *(self.watches if on else ()))
        self._seen = getattr(module, "loss_record", None)

    def new_record(self, module: LightningModule) -> LossRecord | None:
        """The record of a `compute_loss` since the last look; None if there was no call."""
        record = getattr(module, "loss_record", None)
        if not isinstance(record, LossRecord) or record is self._seen:
            return None
        self._seen = record
        return record


class Monitor(RecordReader):
    """Reads the records of ``self.compute_loss`` every ``every_n_steps`` optimizer steps.

    A subclass names what it reads in ``watches`` and writes ``measure``. The cadence comes from
    ``trainer.global_step``, so every rank logs the same keys. Under gradient accumulation the
    first batch of a due step is measured.

    Args:
        every_n_steps: optimizer steps between measurements, at least 1.
    """

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self.due = False
        self._measured_step = -1

    @property
    def state_key(self) -> str:
        """Unique for the arguments, so that two monitors of one class can live together."""
        return self._generate_state_key(every_n_steps=self.every_n_steps)

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Look at one record of a training step; log by ``self.publish``."""
        raise NotImplementedError

    def publish(self, values: dict[str, Tensor], rows: int) -> None:
        """Log scalars; every rank must publish the same keys at the same step."""
        self.log_dict(values, on_step=True, on_epoch=False, batch_size=rows)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Decide whether the coming step is measured."""
        step = trainer.global_step
        self.due = step % self.every_n_steps == 0 and step != self._measured_step
        if self.due:
            self._measured_step = step
            self.watch(pl_module, True)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Measure the step that was decided on."""
        if not self.due:
            return
        record = self.new_record(pl_module)
        if record is not None:
            self.measure(trainer, pl_module, record)
        self.due = False
        self.watch(pl_module, False)
