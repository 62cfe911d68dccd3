# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`write_table`: numbers that are no scalars (bins, layers x heads) as a CSV beside the metrics."""

from __future__ import annotations

import csv
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lightning.pytorch import Trainer


def write_table(
    path: Path,
    columns: Sequence[str],
    rows: Sequence[Mapping[str, Any]],
    key: int,
    keep: bool = True,
) -> bool:
    """Append rows to a CSV; earlier rows with the same first ``key`` cells are replaced.

    So a table holds one set of rows per (stage, epoch) or per step, however often it is measured
    and whether training was resumed. Floats keep eight digits; NaN is an empty cell. The file is
    replaced as a whole, so that a run cut off while writing leaves the one before it.

    Args:
        path: the file; missing folders are made. Call on rank zero only.
        columns: names, in order.
        rows: a mapping each, with every column.
        key: how many of the first columns say what the rows are about.
        keep: False begins the table anew, whatever the file holds.

    Returns:
        False if the file held something that is no row of this table; that is then gone.

    Raises:
        OSError: if the file can be neither read nor written.
    """
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    replaced = {tuple(row[:key]) for row in cells}
    earlier, whole = _read(path, list(columns)) if keep and path.exists() else ([], True)
    kept = [row for row in earlier if tuple(row[:key]) not in replaced]
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        with part.open("w", newline="", encoding="utf-8") as file:
            csv.writer(file, lineterminator="\n").writerows([list(columns), *kept, *cells])
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)
    return whole


def folder_of(trainer: Trainer) -> Path | None:
    """Where the tables of a run go: beside its metrics, or nowhere without a local folder.

    Every rank must come here: the folder's name is broadcast.
    """
    folder = trainer.log_dir if trainer.loggers else None
    return None if folder is None or "://" in str(folder) else Path(folder)


def _read(path: Path, columns: list[str]) -> tuple[list[list[str]], bool]:
    """The rows that can be read, and whether these are all that the file holds."""
    lines: list[list[str]] = []
    whole = True
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        try:
            lines.extend(csv.reader(file))
        except csv.Error:  # extend keeps what came before it
            whole = False
    if not lines or lines[0] != columns:
        return [], whole and not lines
    rows = [row for row in lines[1:] if len(row) == len(columns)]
    return rows, whole and len(rows) == len(lines) - 1


def _cell(value: Any) -> str:
    """A number as text; nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.8g}"
    return str(value)
