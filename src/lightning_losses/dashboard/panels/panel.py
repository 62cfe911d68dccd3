# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a panel is: one chart as plain data, with the words that explain it."""

from __future__ import annotations

from typing import Literal, NamedTuple

Kind = Literal["lines", "band", "levels", "reliability", "heat_map", "plane"]
Scale = Literal["linear", "log", "auto"]  # auto: log where positive values span a factor of ten


class Line(NamedTuple):
    """A horizontal threshold; `above` says which side to tint as not healthy."""

    value: float
    label: str
    above: bool | None = None


class Panel(NamedTuple):
    """One chart. Names in `keys` are logged names; `*` stands for any text, slashes included."""

    name: str
    section: str
    title: str
    keys: tuple[str, ...]
    about: str
    healthy: str
    source: str  # the class that logs it
    unit: str = ""
    scale: Scale = "linear"
    lines: tuple[Line, ...] = ()
    kind: Kind = "lines"
    table: str = ""  # the CSV (without .csv) that is drawn instead of keys
    join: Literal["mean", "max", "min"] = "mean"  # what matters in a run: its mean or an extreme
    detail: bool = False  # folded away until asked for
    own: bool = False  # of names that the user logs, of which we know nothing more
    summary: Literal["", "min", "max"] = ""  # of a whole run, beside the last; if not `join`'s
