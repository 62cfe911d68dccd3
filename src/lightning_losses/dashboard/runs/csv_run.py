# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A run from the CSV files of Lightning's CSVLogger and of the monitors, read without failing."""

from __future__ import annotations

import csv
from pathlib import Path

from lightning_losses.dashboard.runs.run import Rows, Run, series_of, table_of

csv.field_size_limit(2**24)  # a cell of a damaged file can be long, which is no reason to stop


def read_csv_run(metrics: Path, name: str) -> Run:
    """`metrics.csv` as curves, and every other CSV beside it as a table."""
    columns, cells, notes = read_csv(metrics)
    if columns and "step" not in columns:
        notes.append(f"{metrics.name} has no column step")
    rows = (dict(zip(columns, line, strict=True)) for line in cells)
    series, epochs = series_of(rows)
    tables: dict[str, Rows] = {}
    for path in sorted(metrics.parent.glob("*.csv")):
        if path != metrics:
            tables[path.stem], problems = read_table(path)
            notes += problems
    return Run(name, series, tables, notes, epochs=epochs)


def read_table(path: Path) -> tuple[Rows, list[str]]:
    """A CSV as rows of numbers and text, and its problems in words."""
    columns, cells, notes = read_csv(path)
    return table_of(columns, cells), notes


def read_csv(path: Path) -> tuple[list[str], list[list[str]], list[str]]:
    """Header, rows of as many cells, and what was wrong with the file in words."""
    name = path.name
    try:
        text = path.read_bytes().decode("utf-8", errors="replace")
    except FileNotFoundError:
        return [], [], [f"{name} was not found"]
    except OSError as error:
        return [], [], [f"{name} could not be read ({type(error).__name__})"]
    notes = []
    if "\ufffd" in text or "\0" in text:
        notes.append(f"{name} is not text in UTF-8 throughout")
        text = text.replace("\0", "\ufffd")
    whole = text.endswith(("\n", "\r"))
    try:
        lines = [line for line in csv.reader(text.splitlines()) if line]
    except csv.Error as error:
        return [], [], [*notes, f"{name} could not be read as CSV ({error})"]
    if not lines:
        return [], [], [f"{name} is empty"]
    columns, body = lines[0], lines[1:]
    if not whole and body:
        # A number that was cut in the middle still looks like a number.
        body = body[:-1]
        notes.append(f"{name} ends in the middle of a line, which was left out: was it cut off?")
    good = [line for line in body if len(line) == len(columns)]
    if len(good) < len(body):
        notes.append(f"{len(body) - len(good)} lines of {name} have too few or too many cells")
    return columns, good, notes
