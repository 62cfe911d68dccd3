# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Monitor`: the life of a callback that reads loss records and changes nothing."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_losses.callbacks.base.csv_table import folder_of, write_table
from lightning_losses.callbacks.base.run_end import Counted, ending_of, write_end
from lightning_losses.callbacks.base.writing import Writer, callback_metrics
from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord


class RecordReader(Callback):
    """Finds the objective, asks it to keep what is read, and speaks once of what it cannot read."""

    watches: ClassVar[tuple[str, ...]] = ()
    """Statistics and named tensors that this callback reads from records."""
    identity: ClassVar[tuple[str, ...]] = ()
    """Arguments that tell two callbacks of one class apart, here and in a checkpoint."""

    name: str
    """First part of the logged names."""
    log_dict: Any  # Lightning gives it to callbacks

    def __init__(self) -> None:
        self._warned: set[str] = set()
        self._writer = Writer()
        self._folder: Path | None = None  # for tables; set when a training begins
        self._training = False
        self._start: Counted | None = None
        # The total of the last record, which tells records apart and, unlike a record, is small.
        self._seen: Tensor | None = None
        self._fresh_run = False  # whether tables of another run may lie where ours will

    @property
    def state_key(self) -> str:
        """Unique for the arguments in ``identity``, so that two of one class can live together."""
        return self._generate_state_key(**{name: getattr(self, name) for name in self.identity})

    def warn_once(self, message: str) -> None:
        """A monitor that cannot measure says so, once, and never stops the run."""
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(f"{type(self).__name__}: {message}")

    def objective(self, module: LightningModule) -> Objective | None:
        """The objective that the module trains on, or None, having said why."""
        objectives = objectives_of(module)
        if objectives:
            return objectives[0]
        loss = getattr(module, "loss", None)
        self.warn_once(
            f"{type(module).__name__}.loss is {type(loss).__name__}, not an Objective, so there "
            "are no records to read. Use LossMixin and self.loss = build_objective('ce')."
        )
        return None

    def start_measuring(self, module: LightningModule) -> None:
        """Ask the objective to keep what this callback reads."""
        self.objective(module)  # complains if there is none
        for objective in objectives_of(module):
            objective.watch(self.state_key, *self.watches)
        self.mark_seen(module)

    def stop_measuring(self, module: LightningModule) -> None:
        """Ask the objective to keep it no longer."""
        for objective in objectives_of(module):
            objective.watch(self.state_key)
        self.mark_seen(module)

    def mark_seen(self, module: LightningModule) -> None:
        """The record that there is now is not a new one."""
        record = getattr(module, "loss_record", None)
        self._seen = record.total if isinstance(record, LossRecord) else None

    def new_record(self, module: LightningModule) -> LossRecord | None:
        """The record of the last `compute_loss` since the last look; None if there was no call."""
        record = getattr(module, "loss_record", None)
        if not isinstance(record, LossRecord) or record.total is self._seen:
            return None
        self._seen = record.total
        calls: dict[str, LossRecord] = getattr(module, "loss_records", {})
        if len(calls) > 1:
            last = next((name for name, one in calls.items() if one is record), "without a name")
            self.warn_once(
                f"this step calls compute_loss by several names ({', '.join(calls)}); the last "
                f"call, {last}, is what is measured."
            )
        return record

    # -- telling -------------------------------------------------------------------------------

    def publish(self, trainer: Trainer, values: Mapping[str, Tensor | float]) -> None:
        """Write scalars of the running batch of a training; see `Writer`.

        Every rank must come here with the same names.
        """
        self._writer.add(trainer, values)

    def withdraw(self, trainer: Trainer, name: str) -> None:
        """Take back a value that holds no longer: checkpoints and early stopping find it gone."""
        callback_metrics(trainer).pop(name, None)

    def publish_epoch(self, values: Mapping[str, Tensor | float]) -> None:
        """Log scalars of a whole validation or test epoch, equal on all ranks, at its end.

        Lightning writes them once, with the step of training at that moment, and they are among
        what ``trainer.validate`` prints and returns.
        """
        self.log_dict(
            dict(values),
            batch_size=1,
            sync_dist=True,  # equal already; without it Lightning advises to set it
            add_dataloader_idx=False,  # the names say it where it matters
        )

    def catch_up(self, trainer: Trainer) -> None:
        """A moment when waiting for the device costs nothing: write what has been measured."""
        self._writer.write_all(trainer)

    def save_table(
        self, path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], key: int
    ) -> None:
        """`write_table` on rank zero; a file that cannot be written is no reason to stop."""
        try:
            whole = write_table(path, columns, rows, key, keep=not self._fresh_run)
        except (OSError, UnicodeError) as error:
            self.warn_once(
                f"{path.name} cannot be written, so training goes on without it "
                f"({type(error).__name__}: {error})."
            )
            return
        self._fresh_run = False
        if not whole:
            self.warn_once(f"{path.name} held lines that are no rows of this table; they are gone.")

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Refuse two callbacks whose measurements could not be told apart."""
        kind, name = type(self), getattr(self, "name", None)  # one of the user's may have no name
        same = [c for c in trainer.callbacks if type(c) is kind and c.name == name] if name else []  # type: ignore[attr-defined]
        if len(same) > 1:
            raise ValueError(
                f"{len(same)} {kind.__name__} would log {name}/*, so that nobody could tell them "
                f"apart: give each another name, as in {kind.__name__}(name='{name}_2')."
            )

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave nothing unwritten."""
        self._writer.write_all(trainer)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A training that is not resumed begins anew: a callback may have been in another one."""
        self._folder, self._training = folder_of(trainer), True
        self._fresh_run = trainer.global_step == 0
        self._start = Counted.now(trainer, pl_module)
        if self._fresh_run:
            self.reset()

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A moment to catch up."""
        self.catch_up(trainer)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Another."""
        self.catch_up(trainer)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """The last one; and write how the run ended, and how large it was."""
        self.catch_up(trainer)
        self._write_end(trainer)

    def reset(self) -> None:
        """A new training begins: whatever an earlier one left is stale."""

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no request with the objective when a run is cut off; write how it ended."""
        with contextlib.suppress(Exception):  # the device may be what has failed
            self._writer.write_all(trainer)
        for objective in objectives_of(pl_module):
            objective.watch(self.state_key)
        self._write_end(trainer, exception)

    def _write_end(self, trainer: Trainer, exception: BaseException | None = None) -> None:
        """Once a training: by the first callback of this kind."""
        began, self._training = self._training, False
        first = next(c for c in trainer.callbacks if isinstance(c, RecordReader))  # type: ignore[attr-defined]
        if began and first is self:
            write_end(trainer, self._folder, ending_of(trainer, exception, self._start))


class Monitor(RecordReader):
    """Reads the records of ``self.compute_loss`` every ``every_n_steps`` optimizer steps.

    A subclass names what it reads in ``watches`` and writes ``measure``. The cadence comes from
    ``trainer.global_step``, so every rank logs the same keys. Under gradient accumulation the
    first batch of a due step is measured.

    Args:
        every_n_steps: optimizer steps between measurements, at least 1.

    Examples:
        >>> class SureRows(Monitor):
        ...     watches = ("confidence",)
        ...
        ...     def measure(self, trainer, module, record):
        ...         sure = (record.stats.confidence > 0.9).float().mean()  # of this rank
        ...         self.publish(trainer, {"sure_rows": sure})
        >>> monitor = SureRows(every_n_steps=50)
    """

    identity: ClassVar[tuple[str, ...]] = ("every_n_steps",)

    def __init__(self, every_n_steps: int = 10) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}.")
        self.every_n_steps = every_n_steps
        self.due = False
        self._measured_step = -1
        self._steps: tuple[int | None, int] = (None, -1)  # the last two that differ

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Look at one record of a training step; write by ``self.publish``."""
        raise NotImplementedError

    def reaches(self, step: int) -> bool:
        """Whether there is a multiple of ``every_n_steps`` after the step before, up to this one.

        Several optimizers take ``global_step`` ahead by more than 1 a batch, past multiples.
        """
        before, now = self._steps
        if step != now:
            before = now if 0 <= now < step else None
            self._steps = before, step
        if before is None:  # of what was before a checkpoint nothing is known
            return step % self.every_n_steps == 0
        return step // self.every_n_steps > before // self.every_n_steps

    def reset(self) -> None:
        super().reset()
        self._measured_step = -1

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """No step of this training was seen yet."""
        super().on_train_start(trainer, pl_module)
        self.due, self._steps = False, (None, -1)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave no request with the objective, and nothing to be measured later."""
        super().on_exception(trainer, pl_module, exception)
        self.due = False

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Decide whether the coming step is measured."""
        self._writer.write_arrived(trainer)
        step = trainer.global_step
        reached = self.reaches(step)
        # One that was due and is still is a batch that the module has skipped.
        self.due = self.due or (reached and step != self._measured_step)
        if self.due:
            self._measured_step = step
            self.start_measuring(pl_module)

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
        self.stop_measuring(pl_module)
