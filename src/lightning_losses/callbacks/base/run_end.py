# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How a training ended, how far it got and how large it was, beside its metrics as ``ended.csv``.

A run that died looks like a finished one to whoever sees only its curves; and a law over runs of
several sizes needs the sizes, which nobody remembers to log.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.strategies import FSDPStrategy

from lightning_losses.callbacks.base.csv_table import write_table
from lightning_losses.callbacks.reading.gather import num_row_ranks
from lightning_losses.callbacks.reading.training_plan import planned_steps


class Ending(NamedTuple):
    """The end of a training; its fields are the columns of the table."""

    reason: str
    """``finished``, ``stopped early``, ``out of time``, ``interrupted``, or the exception's type
    and first line."""
    step: int
    """Optimizer steps that were made."""
    planned_steps: float
    """Optimizer steps that the trainer would have made; NaN where nobody knows."""
    epoch: int
    """The epoch that was running, from 0."""
    num_parameters: float = math.nan
    """Parameters that were trained, each counted once, of all ranks; NaN where nobody knows."""
    rows_seen: float = math.nan
    """Rows that the objective was given in training, of all epochs and ranks, whether they counted
    or not: samples of a classifier, tokens of a language model. NaN where nobody knows."""


class Counted(NamedTuple):
    """What had been seen when a training began here: nothing, unless it was resumed."""

    rows: int
    batches: int

    @staticmethod
    def now(trainer: Trainer, module: LightningModule) -> Counted:
        """Rows that this module has been given, and batches of the whole training."""
        calls: dict[str | None, int] = module.__dict__.get("_training_rows", {})
        rows = max(calls.values(), default=0)  # several calls a step are of the same rows
        return Counted(rows, trainer.fit_loop.epoch_loop.batch_progress.total.ready)


def rows_seen(trainer: Trainer, module: LightningModule, start: Counted) -> float:
    """Rows of the whole training; of batches before a checkpoint as many as of those since."""
    now = Counted.now(trainer, module)
    here = now.batches - start.batches
    if here < 1 or now.rows <= start.rows:
        return math.nan
    return (now.rows - start.rows) * (now.batches / here) * num_row_ranks(trainer)


def num_parameters(trainer: Trainer, module: LightningModule) -> float:
    """How many parameters are trained; NaN where ranks hold parts that do not say what of."""
    if isinstance(trainer.strategy, FSDPStrategy):
        return math.nan
    own = (p for p in module.parameters() if p.requires_grad)
    return float(sum(getattr(p, "ds_numel", p.numel()) for p in own))  # DeepSpeed's name


def ending_of(
    trainer: Trainer, exception: BaseException | None = None, start: Counted | None = None
) -> Ending:
    """The end of a training that is ending now, normally or by an exception."""
    step, planned = trainer.global_step, planned_steps(trainer)
    if not math.isfinite(planned):
        planned = math.nan
    if isinstance(exception, KeyboardInterrupt):
        reason = "interrupted"
    elif exception is not None:
        lines = str(exception).splitlines() or [""]
        reason = f"{type(exception).__name__}: {lines[0]}".rstrip(": ")
    elif not trainer.should_stop or step >= planned:
        reason, planned = "finished", step
    elif any(_is_over(c) for c in trainer.callbacks if isinstance(c, Timer)):  # type: ignore[attr-defined]
        reason = "out of time"
    else:
        reason = "stopped early"
    module, parameters, rows = trainer.lightning_module, math.nan, math.nan
    with contextlib.suppress(Exception):  # a lazy layer that has seen nothing, a group that is gone
        parameters = num_parameters(trainer, module)
        rows = rows_seen(trainer, module, start or Counted(0, 0))
    return Ending(reason, step, planned, trainer.current_epoch, parameters, rows)


def write_end(trainer: Trainer, folder: Path | None, ending: Ending) -> None:
    """Write the table, and the summary of every Weights & Biases run, on rank zero.

    What cannot be written is left out: the run has ended, and its own error is worth more.
    """
    if not trainer.is_global_zero:
        return
    row = ending._asdict()
    if folder is not None:
        with contextlib.suppress(OSError, UnicodeError):
            write_table(folder / "ended.csv", Ending._fields, [row], key=1, keep=False)
    for logger in trainer.loggers:
        if isinstance(logger, WandbLogger):
            with contextlib.suppress(Exception):  # whatever the service is up to
                known = {k: v for k, v in row.items() if v == v}
                logger.experiment.summary.update({f"ended/{k}": v for k, v in known.items()})


def _is_over(timer: Timer) -> bool:
    left = timer.time_remaining()
    return left is not None and left <= 0
