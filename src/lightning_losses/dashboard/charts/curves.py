# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Curves against the step, with thresholds, bands and levels: what is drawn, as plain data.

The page's script draws it in a browser, `vega` as a picture.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np

from lightning_losses.dashboard.charts.theme import POINTS
from lightning_losses.dashboard.panels.catalogue import Panel
from lightning_losses.dashboard.runs.run import Array, Series

EDGES = (("p10", "p90"), ("low", "high"))  # last parts of the names that bound a band
CROSSES = 200  # of a curve, where it was not finite
Data = dict[str, Any]


class Chart(NamedTuple):
    """A drawing, and in words what it leaves out or a reader would otherwise have to look up."""

    data: Data | None
    facts: list[str]
    part: str = ""  # which of several charts of a panel this is


def curves(panel: Panel, series: Mapping[str, Series], one_a_run: bool = False) -> Chart:
    """A panel's curves, one a name; None as data if there is nothing that can be drawn.

    Args:
        one_a_run: the names are those of runs, and stand as they are.
    """
    facts, drawn = [], {}
    bad = sum(len(one.not_finite) for one in series.values())
    if bad:
        facts.append(f"{bad:,} NaN or infinite not drawn")
    log = is_log(panel, series)
    hidden = most = 0
    for name, one in series.items():
        steps, values = one.steps, one.values
        if log:
            positive = values > 0
            hidden += int((~positive).sum())
            steps, values = steps[positive], values[positive]
        if len(values):
            drawn[name] = steps, values
            most = max(most, len(values))
    if hidden:
        facts.append(f"{hidden:,} of 0 or below not drawn (log scale)")
    if not drawn:
        return Chart(None, facts)
    if most > POINTS:
        facts.append(f"of every {bucket(most)} values the lowest and the highest are drawn")
    facts += same(drawn)
    labels = {name: name for name in drawn} if one_a_run else short(list(drawn))
    lines: list[Data] = []
    for at, (name, (steps, values)) in enumerate(drawn.items()):
        line: Data = {"name": labels[name], "run": at if one_a_run else 0, **thin(steps, values)}
        missing = series[name].not_finite
        if len(missing):
            every = -(-len(missing) // CROSSES)
            line["bad"] = [tidy(step) for step in missing[::every]]
        lines.append(line)
    ends = [(float(values.min()), float(values.max())) for _, values in drawn.values()]
    limits = [line.value for line in panel.lines]
    low = min([low for low, _ in ends] + limits)
    high = max([high for _, high in ends] + limits)
    data: Data = {
        "kind": "curves",
        "levels": panel.kind == "levels",
        "unit": panel.unit,
        "log": log,
        "lines": [line._asdict() for line in panel.lines],
        "band": band(lines) if panel.kind == "band" else None,
        "series": lines,
        "by_run": one_a_run,
        **axis(panel, log, low, high),
    }
    return Chart(data, facts)


def is_log(panel: Panel, series: Mapping[str, Series]) -> bool:
    """As the panel says; where it leaves it open, log if positive values span a factor of ten."""
    if panel.scale != "auto":
        return panel.scale == "log"
    values = [one.values for one in series.values() if len(one.values)]
    if not values:
        return False
    low = min(float(one.min()) for one in values)
    return low > 0 and max(float(one.max()) for one in values) > 10 * low


def bucket(count: int) -> int:
    """How many neighbours are joined to two points, so that there are at most POINTS."""
    return -(-count // (POINTS // 2))


def thin(steps: Array, values: Array) -> Data:
    """Steps and values, at most POINTS: of neighbours the lowest and the highest, where they were.

    Their means are there too, for smoothing: those of the extremes would be others.
    """
    count = len(values)
    if count <= POINTS:
        return {"x": tidied(steps), "y": tidied(values)}
    size = bucket(count)
    groups = -(-count // size)
    fill = groups * size - count
    low = np.pad(values, (0, fill), constant_values=np.inf).reshape(groups, size)
    high = np.pad(values, (0, fill), constant_values=-np.inf).reshape(groups, size)
    starts = np.arange(groups) * size
    kept = np.unique(np.concatenate([starts + low.argmin(1), starts + high.argmax(1)]))
    means = np.add.reduceat(values, starts) / np.diff(np.append(starts, count))
    middles = steps[np.minimum(starts + size // 2, count - 1)]
    return {
        "x": tidied(steps[kept]),
        "y": tidied(values[kept]),
        "mean": [tidied(middles), tidied(means)],
    }


def tidy(value: float) -> float:
    """Six digits, what a picture can show, at half the size of the file; steps stay whole."""
    value = float(value)
    return int(value) if value.is_integer() and abs(value) < 1e15 else float(f"{value:.6g}")


def tidied(values: Array) -> list[float]:
    """Each of them."""
    return [tidy(value) for value in values.tolist()]


def same(drawn: Mapping[str, tuple[Array, Array]]) -> list[str]:
    """Curves that lie on each other, of which only one would be seen, in words."""
    if len(drawn) > 30:
        return []
    return [
        f"{one} and {other} are the same"
        for (one, a), (other, b) in combinations(drawn.items(), 2)
        if len(a[0]) == len(b[0]) > 1 and (a[1] == b[1]).all() and (a[0] == b[0]).all()
    ]


def short(names: list[str]) -> dict[str, str]:
    """Names without the parts that all of them begin with; a single one keeps its last two."""
    split = {name: name.split("/") for name in names}
    if len(names) == 1:
        return {name: "/".join(parts[-2:]) for name, parts in split.items()}
    shared = 0
    while len({tuple(parts[: shared + 1]) for parts in split.values()}) == 1:
        shared += 1
    return {name: "/".join(parts[shared:]) or name for name, parts in split.items()}


def band(lines: list[Data]) -> list[int] | None:
    """Which two curves bound an area, where these are."""
    names = [line["name"] for line in lines]
    for low, high in EDGES:
        if low in names and high in names:
            return [names.index(low), names.index(high)]
    return None


def axis(panel: Panel, log: bool, low: float, high: float) -> Data:
    """Where the value's axis begins and ends, and its ticks where they are not left to the page."""
    if panel.kind == "levels":
        return {"domain": [0, 2.2], "ticks": [0, 1, 2]}
    if log:
        low, high = low / 1.2, high * 1.2
        return {"domain": [low, high], "ticks": log_ticks(low, high)}
    margin = 0.04 * (high - low) or abs(high) * 0.5 or 1
    bottom, top = low - margin, high + margin
    if low >= 0 and bottom < 0.25 * high:
        bottom = 0.0  # values that may not be below 0 have an axis that is not either
    if panel.unit.startswith("fraction") and high <= 1:
        top = min(top, 1.0) if high < 1 else 1.0
        bottom = max(bottom, -1.0)
    return {"domain": [tidy(bottom), tidy(top)], "ticks": None}


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there is room, at most about eight."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    between = (1, 2, 5) if high / low < 300 else (1,)
    every = 1 + (last - first) // 9
    powers = [power for power in range(first, last + 1) if power % every == 0]
    ticks = [mark * 10.0**power for power in powers for mark in between]
    return [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]
