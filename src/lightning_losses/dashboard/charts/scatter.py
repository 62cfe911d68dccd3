# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Runs as points, one thing about them against another, with the curve of a law through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_losses.dashboard.charts.curves import Chart, Data, log_ticks, tidy


class Points(NamedTuple):
    """Some of the runs: a colour."""

    name: str
    x: Sequence[float]
    y: Sequence[float]
    line: Sequence[tuple[float, float]] = ()  # a law at some x
    band: Sequence[tuple[float, float, float]] = ()  # x, lowest and highest of its interval
    runs: Sequence[str] = ()  # names of the points


def scatter(groups: Sequence[Points], x_title: str, y_title: str) -> Chart:
    """Points over a logarithmic x; a logarithmic y too where it spans a factor of ten.

    Args:
        groups: every x and y finite, every x positive.
    """
    xs = [x for one in groups for x in (*one.x, *(at for at, _ in one.line))]
    ys = [y for one in groups for y in (*one.y, *(y for _, y in one.line))]
    if not xs:
        return Chart(None, [])
    low, high = min(xs) / 1.15, max(xs) * 1.15
    bottom, top = min(ys), max(ys)
    log_y = bottom > 0 and top > 10 * bottom
    margin = 0.06 * (top - bottom) or abs(top) * 0.5 or 1
    y_domain = [bottom / 1.2, top * 1.2] if log_y else [bottom - margin, top + margin]
    series: list[Data] = [
        {
            "name": one.name,
            "x": [tidy(x) for x in one.x],
            "y": [tidy(y) for y in one.y],
            "runs": list(one.runs),
            "line": [[tidy(x), tidy(y)] for x, y in one.line],
            "band": [[tidy(value) for value in edge] for edge in one.band],
        }
        for one in groups
    ]
    data: Data = {
        "kind": "scatter",
        "titles": {"x": x_title, "y": y_title},
        "x": {"domain": [low, high], "ticks": log_ticks(low, high)},
        "y": {"domain": y_domain, "ticks": log_ticks(*y_domain) if log_y else None},
        "series": series,
    }
    return Chart(data, [])
