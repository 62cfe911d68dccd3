# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a run wrote, whoever wrote it: curves, tables, and in words what could not be read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from math import inf, isfinite
from typing import Any, NamedTuple

Cell = float | str | None  # None is an empty cell: NaN, or nothing to say
Rows = list[dict[str, Cell]]
STEP_NAMES = ("trainer/global_step", "step", "_step")


class Series(NamedTuple):
    """The finite values of one logged name in the order of the step."""

    steps: list[float]
    values: list[float]
    not_finite: list[float] = []  # the steps at which it was NaN or infinite

    @property
    def last(self) -> float:
        return self.values[-1]


class Run(NamedTuple):
    """Everything a dashboard needs to know about one run."""

    name: str
    series: dict[str, Series]
    tables: dict[str, Rows]
    notes: list[str]  # what is missing or broken, in words
    overrides: list[str] = []  # Hydra's, as typed
    epochs: int | None = None


def series_of(rows: Iterable[Mapping[str, Any]]) -> tuple[dict[str, Series], int | None]:
    """Curves from rows of logged names, and how many epochs have training steps.

    A row's step is `trainer/global_step`, else `step`, else `_step`. What is no number (text,
    pictures, tables, blanks) is skipped; NaN and infinities are counted apart.
    """
    points: dict[str, list[tuple[float, float]]] = {}
    epochs = -1.0
    for row in rows:
        step = next((number(row[name]) for name in STEP_NAMES if name in row), None)
        if step is None or not isfinite(step):
            continue
        epoch = number(row.get("epoch"))
        if epoch is not None and isfinite(epoch) and number(row.get("train/loss")) is not None:
            epochs = max(epochs, epoch)
        for name, cell in row.items():
            if name in STEP_NAMES or name == "epoch" or name.startswith("_"):
                continue
            value = number(cell)
            if value is not None:
                points.setdefault(name, []).append((step, value))
    series = {}
    for name, found in points.items():
        found.sort(key=lambda point: point[0])  # stable: of one step the later stays later
        good = [point for point in found if isfinite(point[1])]
        bad = [step for step, value in found if not isfinite(value)]
        series[name] = Series([s for s, _ in good], [v for _, v in good], bad)
    return series, int(epochs) + 1 if epochs >= 0 else None


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
