# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How a training ended and how far it got, written beside its metrics as ``ended.csv``.

A run that died looks like a finished one to whoever sees only its curves.
"""

from __future__ import annotations

import contextlib
import math
from pathlib import Path
from typing import NamedTuple

from lightning.pytorch import Trainer
from lightning.pytorch.callbacks import Timer
from lightning.pytorch.loggers import WandbLogger

from lightning_losses.callbacks.base.csv_table import write_table
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


def ending_of(trainer: Trainer, exception: BaseException | None = None) -> Ending:
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
    return Ending(reason, step, planned, trainer.current_epoch)


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
