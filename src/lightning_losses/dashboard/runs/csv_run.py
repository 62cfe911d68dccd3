# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A run from the CSV files of Lightning's CSVLogger and of the monitors, read without failing.

Read by polars, whose cells are columns of numbers from the start: a run of 200,000 steps takes
half a second, and about as much memory as its file twice.
"""

from __future__ import annotations

import csv
import io
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from lightning_losses.dashboard.runs.files import read_bytes
from lightning_losses.dashboard.runs.run import (
    STEP_NAMES,
    Ended,
    Log,
    Rows,
    table_of,
)

if TYPE_CHECKING:
    from polars import DataFrame

MOMENTS = 60  # of a table over steps or epochs, which is what a slider can be moved to
csv.field_size_limit(2**24)  # a cell of a damaged file can be long, which is no reason to stop


def read_csv_log(path: Path) -> tuple[Log, list[str]]:
    """`metrics.csv` as a log, and its problems in words."""
    frame, notes = read_csv(path)
    if frame is None:
        return Log(np.empty(0), {}), notes
    step = next((name for name in STEP_NAMES if name in frame.columns), None)
    if step is None:
        notes.append(f"{path.name} has no column step")
        return Log(np.empty(0), {}), notes
    columns = {}
    for name in frame.columns:
        column = frame.get_column(name)
        if column.null_count() < len(column):
            rows = np.flatnonzero(column.is_not_null().to_numpy())
            columns[name] = rows, column.drop_nulls().to_numpy()
    # A step that is missing is NaN, one that is infinite says no more.
    steps = frame.get_column(step).fill_null(np.nan).to_numpy().copy()
    steps[~np.isfinite(steps)] = np.nan
    known = np.isfinite(steps)
    for name, (rows, values) in columns.items():
        here = known[rows]
        if not here.all():
            columns[name] = rows[here], values[here]
    return Log(steps, columns), notes


def read_tables(folder: Path, root: Path) -> tuple[dict[str, Rows], Ended | None, list[str]]:
    """Every CSV of a monitor in a folder, how the training ended, and what could not be read."""
    tables: dict[str, Rows] = {}
    notes: list[str] = []
    ended = None
    for path in sorted(folder.glob("*.csv")):
        if path.name == "metrics.csv":
            continue
        rows, problems = read_table(path, root)
        notes += problems
        if path.stem == "ended":
            ended = ended_of(rows)
        else:
            tables[path.stem] = rows
    return tables, ended, notes


def ended_of(rows: Rows) -> Ended | None:
    """The last line of `ended.csv`."""
    if not rows or not rows[-1].get("reason"):
        return None

    def value(name: str) -> float:
        cell = rows[-1].get(name)
        return cell if isinstance(cell, float) else float("nan")

    reason = str(rows[-1]["reason"])
    step, planned, epoch = (value(name) for name in ("step", "planned_steps", "epoch"))
    sizes = (value(name) for name in ("num_parameters", "rows_seen"))
    return Ended(reason, step, planned, epoch, "ended.csv", *sizes)


def read_table(path: Path, root: Path | None = None) -> tuple[Rows, list[str]]:
    """A CSV as rows of numbers and text, and its problems in words.

    Of a table over many steps or epochs, `MOMENTS` are kept, the last among them.
    """
    frame, notes = read_csv(path, root, numbers=False)
    if frame is None:
        return [], notes
    moment = next((name for name in ("step", "epoch") if name in frame.columns), None)
    if moment is not None:
        import polars as pl

        known = frame.get_column(moment).unique(maintain_order=True)
        if len(known) > MOMENTS:
            at = np.linspace(0, len(known) - 1, MOMENTS).round().astype(int)
            frame = frame.filter(pl.col(moment).is_in(known[at.tolist()].to_list()))
            notes.append(f"{path.name}: {MOMENTS} of {len(known):,} {moment}s are shown")
    return table_of(frame.columns, frame.rows()), notes


def read_csv(
    path: Path, root: Path | None = None, numbers: bool = True
) -> tuple[DataFrame | None, list[str]]:
    """A CSV as columns of numbers (or of text), without lines that are cut off or too short.

    Returns:
        None as frame if nothing can be read; why, in words, and what else is wrong with the file.

    Raises:
        ImportError: polars is not installed.
    """
    try:
        import polars as pl
    except ImportError as error:
        raise ImportError(
            "Runs are read with polars, which is not installed; write: "
            'pip install "lightning-losses[report]"'
        ) from error
    data, notes = read_bytes(path, root)
    name = path.name
    if data is None:
        return None, notes
    if not data.isascii() or b"\0" in data:
        text = data.decode("utf-8", errors="replace").replace("\0", "\ufffd")
        if "\ufffd" in text:
            notes.append(f"{name} is not text in UTF-8 throughout")
        data = text.encode()
    data = data.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n")
    if not data.strip():
        return None, [*notes, f"{name} is empty"]
    header, _, body = data.lstrip(b"\n").partition(b"\n")
    if not data.endswith(b"\n") and body:
        # A number that was cut in the middle still looks like a number.
        body = body[: body.rfind(b"\n") + 1]
        notes.append(f"{name} ends in the middle of a line, which was left out: was it cut off?")
    del data
    try:
        columns = next(csv.reader([header.decode()]))
        body, bad = whole_lines(body, len(columns))
    except csv.Error as error:
        return None, [*notes, f"{name} could not be read as CSV ({error})"]
    if bad:
        notes.append(f"{bad:,} lines of {name} have too few or too many cells")
    unique = [
        one if columns.index(one) == at else f"{one} ({at})" for at, one in enumerate(columns)
    ]
    kind = pl.Float64 if numbers else pl.String
    if not body:
        return pl.DataFrame(schema=dict.fromkeys(unique, kind)), notes
    schema: dict[str, Any] = dict.fromkeys(unique, kind)
    try:
        frame = pl.read_csv(io.BytesIO(body), has_header=False, schema=schema, ignore_errors=True)
    except pl.exceptions.PolarsError as error:
        return None, [*notes, f"{name} could not be read as CSV ({type(error).__name__})"]
    return frame, notes


def whole_lines(body: bytes, cells: int) -> tuple[bytes, int]:
    """The lines that have as many cells as the header, and how many have not."""
    if b'"' in body:  # a quoted cell may hold commas and ends of lines
        lines = [line for line in csv.reader(io.StringIO(body.decode(), newline="")) if line]
        good = [line for line in lines if len(line) == cells]
        out = io.StringIO(newline="")
        csv.writer(out, lineterminator="\n").writerows(good)
        return out.getvalue().encode(), len(lines) - len(good)
    letters = np.frombuffer(body, np.uint8)
    ends = np.flatnonzero(letters == ord("\n"))
    if not len(ends):
        return b"", 0
    starts = np.append(0, ends[:-1] + 1)
    before = np.searchsorted(np.flatnonzero(letters == ord(",")), ends)
    commas = np.diff(before, prepend=0)
    blank = starts == ends
    bad = (commas != cells - 1) & ~blank
    if not bad.any() and not blank.any():
        return body, 0
    kept = np.flatnonzero(~(bad | blank))
    return b"".join(body[starts[at] : ends[at] + 1] for at in kept), int(bad.sum())
