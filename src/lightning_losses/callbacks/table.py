# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`write_table`: numbers that are no scalars (bins, layers x heads) as a CSV beside the metrics."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any


def write_table(
    path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]], key: int
) -> None:
    """Append rows to a CSV; earlier rows with the same first ``key`` cells are replaced.

    So a table holds one set of rows per (stage, epoch) or per step, however often it is measured
    and whether training was resumed. Floats keep eight digits; NaN is an empty cell.

    Args:
        path: the file; missing folders are made. Call on rank zero only.
        columns: names, in order.
        rows: a mapping each, with every column.
        key: how many of the first columns say what the rows are about.
    """
    cells = [[_cell(row[column]) for column in columns] for row in rows]
    replaced = {tuple(row[:key]) for row in cells}
    kept: list[list[str]] = []
    if path.exists():
        with path.open(newline="") as file:
            kept = [row for row in list(csv.reader(file))[1:] if tuple(row[:key]) not in replaced]
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w", newline="") as file:
        csv.writer(file, lineterminator="\n").writerows([list(columns), *kept, *cells])


def _cell(value: Any) -> str:
    """A number as text; nothing for NaN."""
    if isinstance(value, float):
        return "" if value != value else f"{value:.8g}"
    return str(value)
