# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a run wrote, whoever wrote it: curves, tables, config, and in words what went wrong.

A `Log` holds the rows as they stand in the file; `trainings` cuts it where a training began anew
and joins what a resumed one wrote twice; `Run` is what dashboards read.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import pairwise
from math import inf, isfinite, nan
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Cell = float | str | None  # None is an empty cell: NaN, or nothing to say
Rows = list[dict[str, Cell]]
STEP_NAMES = ("trainer/global_step", "step", "_step")
TIME_NAMES = ("_timestamp", "_runtime", "time", "timestamp")
NOTHING: Array = np.empty(0)
EXITED = "exited"  # as reason of an end: the process ended without an error, no more is known
KNOTS = 400  # of the map from steps to epochs and seconds: a picture shows no more


class Series(NamedTuple):
    """The finite values of one logged name in the order of the step."""

    steps: Array
    values: Array
    not_finite: Array = NOTHING  # the steps at which it was NaN or infinite

    @property
    def first(self) -> float:
        return float(self.values[0])

    @property
    def last(self) -> float:
        return float(self.values[-1])

    @property
    def last_step(self) -> float:
        """Of any value, finite or not."""
        ends = [steps[-1] for steps in (self.steps, self.not_finite) if len(steps)]
        return float(max(ends, default=-1))


class Ended(NamedTuple):
    """How a training ended, in the words of what recorded it; NaN where that is not known."""

    reason: str
    step: float
    planned_steps: float
    epoch: float
    source: str  # what says so
    num_parameters: float = nan  # that were trained
    rows_seen: float = nan  # by the objective, of all epochs


class Clock(NamedTuple):
    """Epoch and seconds since the start at some steps; both are straight lines between them."""

    steps: Array = NOTHING
    epochs: Array = NOTHING
    seconds: Array = NOTHING  # empty where nothing recorded the time


class Run(NamedTuple):
    """Everything a dashboard needs to know about one run."""

    name: str
    series: dict[str, Series]
    tables: dict[str, Rows]
    notes: list[str]  # what is missing or broken, in words
    overrides: list[str] = []  # Hydra's, as typed
    epochs: int | None = None  # that have training steps
    config: dict[str, Cell] = {}  # flat, names joined by dots
    about: dict[str, str] = {}  # versions, git commit, hardware, duration
    ended: Ended | None = None
    clock: Clock = Clock()
    resumed: list[float] = []  # first steps after a restart from a checkpoint

    @property
    def last_step(self) -> float:
        """The last step at which anything was logged; -1 if nothing was."""
        return max((one.last_step for one in self.series.values()), default=-1)


class Log(NamedTuple):
    """Rows in the order of writing; a column holds the rows in which it is a number, and these."""

    steps: Array  # NaN where a row has none
    columns: dict[str, tuple[NDArray[np.intp], Array]]

    @property
    def main(self) -> NDArray[np.intp]:
        """The rows whose steps tell where a training is: of the loss, else of what is frequent."""
        names = [name for name in self.columns if is_logged_name(name)]
        if not names:
            return np.empty(0, np.intp)

        def rank(name: str) -> tuple[bool, bool, int]:
            of_training = "train" in name and "loss" in name
            return name == "train/loss", of_training, len(self.columns[name][0])

        rows = self.columns[max(names, key=rank)][0]
        return rows[np.isfinite(self.steps[rows])]


class Part(NamedTuple):
    """Rows that one process wrote without going back, and the step before which they hold."""

    start: int
    stop: int
    first_step: float


def is_logged_name(name: str) -> bool:
    """Whether a column is something that was measured, and not where or when."""
    return name not in STEP_NAMES and name != "epoch" and not name.startswith("_")


def log_of(rows: Iterable[Mapping[str, Any]]) -> Log:
    """A log from rows of logged names, nested or not; text, pictures and blanks are skipped."""
    steps: list[float] = []
    cells: dict[str, tuple[list[int], list[float]]] = {}
    for at, row in enumerate(rows):
        known = (number(row[name]) for name in STEP_NAMES if name in row)
        steps.append(next((step for step in known if step is not None), np.nan))
        for name, cell in row.items():
            value = number(cell)
            if value is not None:
                where, values = cells.setdefault(name, ([], []))
                where.append(at)
                values.append(value)
    columns = {name: (np.array(where), np.array(values)) for name, (where, values) in cells.items()}
    return Log(np.array(steps, float), columns)


def trainings(log: Log) -> list[list[Part]]:
    """The trainings in a log, each the parts that a resumed one consists of.

    Where the step of the loss goes back, something began again: another training if it begins
    within the first stride, else the same one, from a checkpoint. Rows of monitors may come late
    and do not count.
    """
    rows = log.main
    steps = log.steps[rows]
    cuts = np.flatnonzero(np.diff(steps) < 0) + 1
    edges = [0, *(int(rows[cut]) for cut in cuts), len(log.steps)]
    found: list[list[Part]] = []
    for start, stop in pairwise(edges):
        own = log.steps[rows[(rows >= start) & (rows < stop)]]
        first = float(own[0]) if len(own) else 0.0
        part = Part(start, stop, first)
        if found and is_resumed(own, found[-1][0].first_step):
            found[-1].append(part)
        else:
            found.append([part])
    return found


def is_resumed(steps: Array, first_step: float) -> bool:
    """Whether steps go on from a checkpoint: they begin beyond their stride and the first start."""
    if not len(steps):
        return True
    stride = float(np.median(np.diff(steps))) if len(steps) > 1 else 1.0
    return bool(steps[0] > max(first_step, stride))


def series_of(log: Log, parts: Sequence[Part]) -> dict[str, Series]:
    """Curves of one training; a later part replaces what an earlier one wrote from its start on."""
    keep = np.zeros(len(log.steps), bool)
    for at, part in enumerate(parts):
        ends = min((later.first_step for later in parts[at + 1 :]), default=inf)
        with np.errstate(invalid="ignore"):
            keep[part.start : part.stop] = log.steps[part.start : part.stop] < ends
    series = {}
    for name, (rows, values) in log.columns.items():
        if not is_logged_name(name):
            continue
        here = keep[rows]
        steps, own = log.steps[rows[here]], values[here]
        if not len(own):
            continue
        order = np.argsort(steps, kind="stable")  # of one step the later stays later
        if not (np.diff(steps) >= 0).all():
            steps, own = steps[order], own[order]
        finite = np.isfinite(own)
        if not finite.all():
            series[name] = Series(steps[finite], own[finite], steps[~finite])
        else:
            series[name] = Series(steps, own)
    return series


def clock_of(log: Log, parts: Sequence[Part]) -> tuple[Clock, int | None]:
    """When each step was, and how many epochs have training steps.

    Epochs are logged whole; between the first steps of two they are taken to pass evenly. Seconds
    are counted without the time between a crash and the restart.
    """
    if not len(log.steps) or "epoch" not in log.columns:
        return Clock(), None
    epoch = np.full(len(log.steps), np.nan)
    rows, values = log.columns["epoch"]
    epoch[rows] = values
    main = log.main
    ends = [*(part.first_step for part in parts[1:]), inf]
    rows = np.concatenate(
        [
            main[(main >= part.start) & (main < part.stop) & (log.steps[main] < end)]
            for part, end in zip(parts, ends, strict=True)
        ]
    )
    rows = rows[np.isfinite(epoch[rows])]
    if not len(rows):
        return Clock(), None
    steps, epochs = log.steps[rows], epoch[rows]
    count = int(epochs.max()) + 1
    starts = np.flatnonzero(np.diff(epochs, prepend=epochs[0] - 1) > 0)
    knots = steps[starts]
    length = float(np.median(np.diff(knots))) if len(knots) > 1 else float(steps[-1]) + 1
    # Rows are sparse, so the first of an epoch is late; a first epoch begins at step 0.
    knots = knots - (knots[0] if epochs[0] == 0 else 0)
    at = np.unique(steps[np.linspace(0, len(steps) - 1, min(KNOTS, len(steps))).astype(int)])
    fine = np.interp(at, knots, epochs[starts])
    beyond = at > knots[-1]
    fine[beyond] = epochs[starts][-1] + np.minimum((at[beyond] - knots[-1]) / length, 1.0)
    return Clock(at, fine, seconds_at(log, parts, at)), count


def seconds_at(log: Log, parts: Sequence[Part], steps: Array) -> Array:
    """Seconds since the start at some steps; nothing where no time was logged."""
    name = next((name for name in TIME_NAMES if name in log.columns), None)
    if name is None:
        return NOTHING
    rows, times = log.columns[name]
    gone, found_steps, found = 0.0, [], []
    for part in parts:
        here = (rows >= part.start) & (rows < part.stop) & np.isfinite(log.steps[rows])
        if not here.any():
            continue
        own = times[here] - (times[here][0] if name != "_runtime" or part.start else 0)
        found_steps.append(log.steps[rows[here]])
        found.append(own + gone)
        gone = float(found[-1][-1])
    if not found:
        return NOTHING
    order = np.argsort(np.concatenate(found_steps), kind="stable")
    seconds: Array = np.interp(
        steps,
        np.concatenate(found_steps)[order],
        np.maximum.accumulate(np.concatenate(found)[order]),
    )
    return seconds


def number(cell: Any) -> float | None:
    """A cell as a number, or None. Text such as NaN or Infinity is a number that is not finite."""
    if isinstance(cell, bool) or not isinstance(cell, (int, float, str)):
        return None
    try:
        return float(cell)
    except ValueError:
        return None
    except OverflowError:
        return inf


def table_of(columns: Iterable[Any], cells: Iterable[Iterable[Any]]) -> Rows:
    """A table with numbers as numbers and NaN as an empty cell; short rows are left out."""
    names, rows = [str(column) for column in columns], []
    for line in cells:
        row: dict[str, Cell] = {}
        for name, cell in zip(names, line, strict=False):
            value = number(cell)
            if value is not None:
                row[name] = value if isfinite(value) else None
            else:
                row[name] = None if cell is None or cell == "" else str(cell)
        if len(row) == len(names):
            rows.append(row)
    return rows
