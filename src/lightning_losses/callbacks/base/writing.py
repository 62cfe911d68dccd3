# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Writer`: the one way by which what is measured in training reaches the loggers.

Lightning writes what a step logs by ``self.log`` every ``log_every_n_steps`` batches only, with the
step of that moment, and again and again until the next value comes. A monitor has a cadence of its
own, so its measurements go to the loggers directly: once, with the step at which they were made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.base.deferred_reads import DeferredReads


class Place(NamedTuple):
    """When something was measured."""

    step: int
    """On the axis that ``train/loss`` has in every logger."""
    epoch: int


class Row(NamedTuple):
    """A measurement, but for the numbers that are still on the device."""

    place: Place
    names: tuple[str, ...]
    """Of the numbers that wait."""
    known: dict[str, float]


def place_of(trainer: Trainer) -> Place:
    """The place of the batch that runs now, as Lightning counts it for ``train/loss``.

    It counts batches after which an optimizer stepped, once a batch whatever the number of
    optimizers; `trainer.global_step` would run ahead with several of them.
    """
    return Place(trainer.fit_loop.epoch_loop._batches_that_stepped, trainer.current_epoch)


def callback_metrics(trainer: Trainer) -> dict[str, Tensor]:
    """What is behind ``trainer.callback_metrics``.

    Asking for that first turns what the progress bar shows into numbers, which waits for the device
    in the middle of a step.
    """
    metrics: dict[str, Tensor] = trainer._logger_connector._callback_metrics
    return metrics


def write(trainer: Trainer, place: Place, values: Mapping[str, float]) -> None:
    """Write scalars to each logger of the trainer; on rank zero, and once for a measurement."""
    for logger in trainer.loggers:
        logger.log_metrics({**values, "epoch": place.epoch}, step=place.step)
        logger.save()


class Writer:
    """Takes measurements, and writes them once their numbers are on the host.

    On a CPU that is at once. On an accelerator the numbers travel while training goes on, and each
    keeps its own step.
    """

    def __init__(self) -> None:
        self._waiting: DeferredReads[Row] = DeferredReads()

    def add(self, trainer: Trainer, values: Mapping[str, Tensor | float]) -> None:
        """Take a measurement of the running batch: 0-dim tensors or numbers by name.

        On every rank the last values are in ``trainer.callback_metrics``, for checkpoints and
        early stopping; every rank must come here with the same names. Nothing waits.
        """
        tensors = {name: torch.as_tensor(value).detach() for name, value in values.items()}
        callback_metrics(trainer).update(tensors)
        if not trainer.is_global_zero or not trainer.loggers:
            return
        known = {name: float(t) for name, t in tensors.items() if t.device.type == "cpu"}
        late = {name: t.reshape(()) for name, t in tensors.items() if name not in known}
        row = Row(place_of(trainer), tuple(late), known)
        if late:
            # Wide enough for counts of rows; not every device has float64.
            device = next(iter(late.values())).device
            dtype = torch.float32 if device.type == "mps" else torch.float64
            vector = torch.stack([t.to(device, dtype) for t in late.values()])
        else:
            vector = torch.zeros(0)
        self._waiting.put(row, vector)
        self.write_arrived(trainer)

    def write_arrived(self, trainer: Trainer) -> None:
        """Write what has come meanwhile; waits for nothing, unless too much waits."""
        if len(self._waiting):
            arrived = self._waiting.read() if self._waiting.full else self._waiting.arrived()
            self._write(trainer, arrived)

    def write_all(self, trainer: Trainer) -> None:
        """Write everything; waits for the device."""
        self._write(trainer, self._waiting.read())

    def _write(self, trainer: Trainer, rows: list[tuple[Row, list[float]]]) -> None:
        for row, numbers in rows:
            write(trainer, row.place, row.known | dict(zip(row.names, numbers, strict=True)))
