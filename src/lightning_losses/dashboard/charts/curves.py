# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Curves against the optimizer step, with thresholds, bands and levels, as Vega-Lite."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from statistics import fmean
from typing import Any, NamedTuple

from lightning_losses.dashboard.charts.theme import FEW, HEIGHT, POINTS, WIDTH, Spec
from lightning_losses.dashboard.panels.catalogue import Panel
from lightning_losses.dashboard.runs.run import Series

EDGES = (("p10", "p90"), ("low", "high"))  # last parts of the names that bound a band


class Chart(NamedTuple):
    """A drawing, and in words what it leaves out or a reader would otherwise have to look up."""

    spec: Spec | None
    facts: list[str]
    part: str = ""  # which of several charts of a panel this is


def curves(panel: Panel, series: Mapping[str, Series], last: float | None = None) -> Chart:
    """A panel's curves, one a name; None as spec if there is nothing that can be drawn.

    Args:
        last: where the step axis ends, so that all panels of a run share one.
    """
    facts, drawn = [], {}
    bad = sum(len(one.not_finite) for one in series.values())
    if bad:
        facts.append(f"{bad:,} NaN or infinite not drawn")
    log = is_log(panel, series)
    hidden = 0
    for name, one in series.items():
        points = list(zip(one.steps, one.values, strict=True))
        kept = [point for point in points if point[1] > 0] if log else points
        hidden += len(points) - len(kept)
        if kept:
            drawn[name] = kept
    if hidden:
        facts.append(f"{hidden:,} of 0 or below not drawn (log scale)")
    if not drawn:
        return Chart(None, facts)
    window = max(-(-len(points) // POINTS) for points in drawn.values())
    if window > 1:
        facts.append(f"each point stands for {window} values ({panel.join})")
    labels = short(list(drawn))
    rows: list[Spec] = [
        {"step": step, "series": labels[name], "value": value}
        for name, points in drawn.items()
        for step, value in thin(points, panel.join)
    ]
    values = [row["value"] for row in rows] + [line.value for line in panel.lines]
    x, y = x_axis(last), y_axis(panel, log, min(values), max(values))
    names = [labels[name] for name in drawn]
    under, over = thresholds(panel, y)
    if panel.kind == "band":
        areas, names = bands(rows, names, x)
        under += areas
    interpolate = "step-after" if panel.kind == "levels" else "linear"
    layers = [*under, *marks(rows, names, {"x": x, "y": y}, interpolate), *over]
    height = HEIGHT // 2 if panel.kind == "levels" else HEIGHT
    return Chart({"width": WIDTH, "height": height, "layer": layers}, facts)


def is_log(panel: Panel, series: Mapping[str, Series]) -> bool:
    """As the panel says; where it leaves it open, log if positive values span a factor of ten."""
    if panel.scale != "auto":
        return panel.scale == "log"
    values = [value for one in series.values() for value in one.values]
    return bool(values) and min(values) > 0 and max(values) > 10 * min(values)


JOIN: dict[str, Callable[[list[float]], float]] = {
    "max": max,
    "min": min,
    "mean": fmean,
}


def thin(points: list[tuple[float, float]], how: str) -> list[tuple[float, float]]:
    """At most POINTS of them: neighbours joined by mean, max or min, at their first step."""
    size = -(-len(points) // POINTS)
    if size == 1:
        return [(step, tidy(value)) for step, value in points]
    groups = [points[at : at + size] for at in range(0, len(points), size)]
    return [(group[0][0], tidy(JOIN[how]([value for _, value in group]))) for group in groups]


def tidy(value: float) -> float:
    """Six digits: what a picture can show, at half the size of the file."""
    return float(f"{value:.6g}")


def short(names: list[str]) -> dict[str, str]:
    """Names without the parts that all of them begin with; a single one keeps its last two."""
    split = {name: name.split("/") for name in names}
    if len(names) == 1:
        return {name: "/".join(parts[-2:]) for name, parts in split.items()}
    shared = 0
    while len({tuple(parts[: shared + 1]) for parts in split.values()}) == 1:
        shared += 1
    return {name: "/".join(parts[shared:]) or name for name, parts in split.items()}


def y_axis(panel: Panel, log: bool, low: float, high: float) -> Spec:
    """The value's axis; the unit stands over it, where it costs no width."""
    title = ", ".join(word for word in (panel.unit, "log scale" if log else "") if word) or None
    if panel.kind == "levels":
        scale: Spec = {"domain": [0, 2.2], "nice": False}
        return {"field": "value", "type": "quantitative", "title": title} | {
            "scale": scale,
            "axis": {"values": [0, 1, 2], "format": "d"},
        }
    axis: Spec = {"tickCount": 5}
    if log:
        low, high = low / 1.2, high * 1.2
        scale = {"type": "log", "domain": [low, high], "nice": False}
        axis = {"format": "~g", "values": log_ticks(low, high)}
    else:
        margin = 0.04 * (high - low) or abs(high) or 1
        scale = {"domain": [tidy(low - margin), tidy(high + margin)], "nice": True, "zero": False}
        if max(abs(low), abs(high)) >= 10_000:
            axis["format"] = "~s"
    return {"field": "value", "type": "quantitative", "title": title} | {
        "scale": scale,
        "axis": axis,
    }


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there is room, at most about eight."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    between = (1, 2, 5) if high / low < 300 else (1,)
    every = 1 + (last - first) // 9
    powers = [power for power in range(first, last + 1) if power % every == 0]
    ticks = [mark * 10.0**power for power in powers for mark in between]
    return [float(f"{tick:.3g}") for tick in ticks if low <= tick <= high]


def x_axis(last: float | None) -> Spec:
    """The optimizer step, in whole numbers."""
    axis = {"tickCount": 6, "tickMinStep": 1, "format": "~s", "grid": False}
    scale = {"domain": [0, last], "nice": False} if last else {"zero": False, "padding": 4}
    return {"field": "step", "type": "quantitative", "title": "step", "scale": scale, "axis": axis}


def marks(rows: list[Spec], names: list[str], place: Spec, interpolate: str) -> list[Spec]:
    """Lines, dots on the short ones, and unseen dots that answer the pointer."""
    encoding: Spec = {**place, "color": {"value": "@main"}}
    if len(names) > 1:
        columns = {"columns": max(1, 340 // (7 * max(map(len, names)) + 36))}  # on a narrow page
        encoding["color"] = {"field": "series", "type": "nominal", "legend": columns} | {
            "scale": {"domain": names}
        }
        if len(names) > 7:  # colours repeat from here on
            dashes = [([1, 0], [6, 3], [2, 2])[min(at // 7, 2)] for at in range(len(names))]
            encoding["strokeDash"] = {
                "field": "series",
                "type": "nominal",
                "scale": {"domain": names, "range": dashes},
            }
    counts = dict.fromkeys(names, 0)
    # The first name is drawn last, over the others: it is what the panel is about.
    order = {name: -at for at, name in enumerate(names)}
    kept = sorted(
        (row for row in rows if row["series"] in counts), key=lambda row: order[row["series"]]
    )
    for row in kept:
        counts[row["series"]] += 1
    few = [row for row in kept if counts[row["series"]] <= FEW]
    tip = [
        {"field": "series", "type": "nominal", "title": "what"},
        {"field": "step", "type": "quantitative", "format": ",d"},
        {"field": "value", "type": "quantitative", "format": ".4~g"},
    ]
    line: dict[str, Any] = {"type": "line", "strokeWidth": 1.8, "strokeJoin": "round"}
    layers = [
        {
            "data": {"values": kept},
            "mark": {**line, "interpolate": interpolate},
            "encoding": encoding,
        }
    ]
    if few:
        dot = {"type": "point", "filled": True, "size": 30, "opacity": 1}
        layers.append({"data": {"values": few}, "mark": dot, "encoding": undashed(encoding)})
    unseen = {"type": "point", "filled": True, "size": 120, "opacity": 0}
    layers.append(
        {
            "data": {"values": kept},
            "mark": unseen,
            "encoding": {**undashed(encoding), "tooltip": tip},
        }
    )
    return layers


def undashed(encoding: Spec) -> Spec:
    """An encoding for dots, which cannot be dashed."""
    return {name: channel for name, channel in encoding.items() if name != "strokeDash"}


def bands(rows: list[Spec], names: list[str], x: Spec) -> tuple[list[Spec], list[str]]:
    """The area between two names that bound one, and the names that are left for lines."""
    for low, high in EDGES:
        if low in names and high in names:
            upper = {row["step"]: row["value"] for row in rows if row["series"] == high}
            area = [
                {"step": row["step"], "value": row["value"], "upper": upper[row["step"]]}
                for row in rows
                if row["series"] == low and row["step"] in upper
            ]
            band: Spec = {
                "data": {"values": area},
                "mark": {"type": "area", "color": "@main", "opacity": 0.18, "line": False},
                "encoding": {
                    "x": x,
                    "y": {"field": "value", "type": "quantitative"},
                    "y2": {"field": "upper"},
                },
            }
            return [band], [name for name in names if name not in (low, high)] or names
    return [], names


def thresholds(panel: Panel, y: Spec) -> tuple[list[Spec], list[Spec]]:
    """What lies under the curves (tints and rules), and over them (the rules' words)."""
    under: list[Spec] = []
    over: list[Spec] = []
    bottom, top = y["scale"]["domain"]
    for line in panel.lines:
        here = {"values": [{"value": line.value, "end": top if line.above else bottom}]}
        colour = "@soft" if line.above is None else "@limit"
        if line.above is not None:
            tint = {"type": "rect", "color": "@tint", "opacity": 0.3}
            place = {"y": y, "y2": {"field": "end"}}
            under.append({"data": here, "mark": tint, "encoding": place})
        rule = {"type": "rule", "color": colour, "strokeWidth": 1.2, "strokeDash": [5, 3]}
        under.append({"data": here, "mark": rule, "encoding": {"y": y}})
        log = y["scale"].get("type") == "log"
        below = not log and line.value > bottom + 0.9 * (top - bottom)
        text = {"type": "text", "text": line.label, "align": "right", "dx": -4, "fontSize": 12}
        text["dy"] = 9 if below else -8
        where = {"y": y, "x": {"value": "width"}}
        # The same words in the paper's colour keep curves from crossing the letters.
        halo = {**text, "color": "@paper", "stroke": "@paper", "strokeWidth": 4, "opacity": 0.8}
        over.append({"data": here, "mark": halo, "encoding": where})
        over.append({"data": here, "mark": {**text, "color": colour}, "encoding": where})
    return under, over
