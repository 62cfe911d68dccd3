# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a run wrote, as rows to draw: the CSV files of a logger, read without ever failing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    import pandas as pd

POINTS = 600  # of a curve: more do not show at the width of a panel


class Source(NamedTuple):
    """A CSV as text cells, or the reason in words why there are none."""

    name: str
    cells: pd.DataFrame | None
    problem: str


class Curves(NamedTuple):
    """Finite values as rows (step, series, value), and what a reader should know about them."""

    rows: pd.DataFrame
    window: int  # values of the longest series that became one point
    not_finite: int

    def ends(self, series: str) -> float | None:
        """The last value of a series, if it has one."""
        values = self.rows.loc[self.rows["series"] == series, "value"]
        return float(values.iloc[-1]) if len(values) else None


def read(path: Path | None, columns: Sequence[str]) -> Source:
    """Cells stay text: a blank (not logged at this step) and a logged NaN are different things."""
    import pandas as pd

    if path is None:
        return Source("", None, "no table was given")
    name = Path(path).name
    try:
        cells = pd.read_csv(path, dtype=str, keep_default_na=False).fillna("")
    except FileNotFoundError:
        return Source(name, None, f"{name} was not found")
    except pd.errors.EmptyDataError:
        return Source(name, None, f"{name} is empty")
    except (OSError, ValueError) as error:
        return Source(name, None, f"{name} could not be read as CSV ({type(error).__name__})")
    absent = [column for column in columns if column not in cells.columns]
    if absent:
        return Source(name, None, f"{name} has no column {', '.join(absent)}")
    return Source(name, cells, "")


def read_curves(source: Source, names: Sequence[str]) -> Curves:
    """The finite values of the named columns, each in the order of `step`."""
    import numpy as np
    import pandas as pd

    cells, kept, not_finite = source.cells, [], 0
    for name in names:
        if cells is None or name not in cells.columns:
            continue
        text = cells[name].str.strip()
        rows = pd.DataFrame({"step": cells["step"], "value": text})
        rows = rows.apply(pd.to_numeric, errors="coerce").astype(float)
        finite = np.isfinite(rows).all(axis=1)
        not_finite += int(((text != "") & ~finite).sum())
        kept.append(rows[finite].sort_values("step", kind="stable").assign(series=name))
    empty = pd.DataFrame({"step": [], "value": [], "series": []})
    return Curves(pd.concat(kept) if kept else empty, 1, not_finite)


def thin(curves: Curves, how: str) -> Curves:
    """At most POINTS rows a series: neighbours joined by `how` (mean, max), at their first step."""
    import pandas as pd

    kept, window = [], 1
    for name, rows in curves.rows.groupby("series", sort=False):
        size = -(-len(rows) // POINTS)
        window = max(window, size)
        numbers = pd.RangeIndex(len(rows)) // size
        joined = rows.groupby(numbers).agg({"step": "first", "value": how})
        kept.append(joined.assign(series=name))
    return curves._replace(rows=pd.concat(kept), window=window) if kept else curves
