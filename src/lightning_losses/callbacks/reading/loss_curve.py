# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`LossCurve`: means of the training loss over windows of steps, a bounded number of them."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

import torch
from torch import Tensor

from lightning_losses.callbacks.base.deferred_reads import DeferredReads
from lightning_losses.metrics.training_curve.annealing import DECAY, AnnealingSums

#: So many points at most; then neighbours are joined, and windows are twice as long from there on.
MOST = 512


@dataclass
class Point:
    """Means over a window of steps."""

    begin: int
    """Number of steps before the window."""
    step: float
    progress: float
    annealing: float
    loss: float

    def joined(self, later: Point) -> Point:
        """The mean of two windows."""
        values = zip(asdict(self).values(), asdict(later).values(), strict=True)
        return Point(self.begin, *[(a + b) / 2 for a, b in list(values)[1:]])


@dataclass
class LossCurve:
    """Counts steps, their learning rates and their losses.

    Args:
        window: steps to a point.
        decay: see `AnnealingSums`.
    """

    window: int
    decay: float = DECAY
    points: list[Point] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.sums = AnnealingSums(self.decay)
        self._waiting: DeferredReads[Point] = DeferredReads()
        self._open: list[float] = []  # count, and sums of step, progress, annealing
        self._loss: Tensor | None = None
        self._losses = 0

    def add_loss(self, loss: Tensor) -> None:
        """A batch's loss, 0-dim; nothing waits for its device."""
        value = loss.detach().float()
        self._loss = value.clone() if self._loss is None else self._loss + value
        self._losses += 1

    def add_step(self, rate: float) -> None:
        """An optimizer step, after the losses of its batches."""
        self.sums.add(rate)
        now = [1.0, float(self.sums.steps), self.sums.progress, self.sums.annealing]
        self._open = [a + b for a, b in zip(self._open or [0.0] * 4, now, strict=True)]
        count = int(self._open[0])
        if count < self.window:
            return
        if self._loss is not None:
            step, progress, annealing = (total / count for total in self._open[1:])
            point = Point(self.sums.steps - count, step, progress, annealing, float("nan"))
            self._take(self._waiting.add(point, (self._loss / self._losses)[None]))
        self._open, self._loss, self._losses = [], None, 0
        if len(self.points) + len(self._waiting) >= MOST:
            self.read()

    def read(self) -> list[Point]:
        """All points, their losses read from the device."""
        self._take(self._waiting.read())
        if len(self.points) >= MOST:
            pairs = zip(self.points[::2], self.points[1::2], strict=True)
            self.points = [a.joined(b) for a, b in pairs]
            self.window *= 2
        return self.points

    def _take(self, arrived: list[tuple[Point, list[float]]]) -> None:
        for point, (loss,) in arrived:
            point.loss = loss
            self.points.append(point)

    def state_dict(self) -> dict[str, Any]:
        """All of it as plain numbers."""
        return {
            "window": self.window,
            "points": [list(asdict(point).values()) for point in self.read()],
            "sums": asdict(self.sums),
            "open": list(self._open),
            "loss": None if self._loss is None else float(self._loss),
            "losses": self._losses,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.window, self.sums = state["window"], AnnealingSums(**state["sums"])
        self.points = [Point(*values) for values in state["points"]]
        self._waiting = DeferredReads()
        self._open, self._losses = list(state["open"]), state["losses"]
        self._loss = None if state["loss"] is None else torch.tensor(state["loss"])
