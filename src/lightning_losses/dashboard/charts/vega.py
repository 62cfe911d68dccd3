# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A chart as Vega-Lite, for pictures: PNGs beside a report and in Weights & Biases."""

from __future__ import annotations

from typing import Any

from lightning_losses.dashboard.charts.curves import Chart, Data
from lightning_losses.dashboard.charts.theme import FEW, HEIGHT, STRIP, WIDTH, Spec

FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1]
UNIT = {"domain": [0, 1], "nice": False}
SHORT = "datum.value ? format(datum.value, '~s') : '0'"  # 0, 500, 1k
LABEL = "datum.count < 1000 ? datum.count : format(datum.count, '.2~s')"  # bins are narrow
BINS = ("lower", "upper", "count", "confidence", "accuracy")


def vega(chart: Chart) -> Spec | None:
    """The spec of a chart; None if there is nothing to draw. Of several frames, the last."""
    if chart.data is None:
        return None
    draw = {"curves": curves, "reliability": reliability, "heat_map": heat_map, "plane": plane}
    draw["scatter"] = scatter
    return draw[chart.data["kind"]](chart.data)


def curves(data: Data) -> Spec:
    """Lines with their thresholds under them."""
    series = data["series"]
    rows: list[Spec] = [
        {"step": step, "series": one["name"], "value": value}
        for one in series
        for step, value in zip(one["x"], one["y"], strict=True)
    ]
    names = [one["name"] for one in series]
    x: Spec = {"field": "step", "type": "quantitative", "title": "step"} | {
        "scale": {"zero": False, "padding": 4},
        "axis": {"tickCount": 6, "tickMinStep": 1, "format": "~s", "grid": False},
    }
    y = y_axis(data)
    under, over = thresholds(data, y)
    if data["band"] is not None:
        low, high = (names[at] for at in data["band"])
        under.append(area(rows, low, high, x))
        names = [name for name in names if name not in (low, high)] or names
    interpolate = "step-after" if data["levels"] else "linear"
    layers = [*under, *marks(rows, names, {"x": x, "y": y}, interpolate), *over]
    return {
        "width": WIDTH,
        "height": HEIGHT // 2 if data["levels"] else HEIGHT,
        "layer": layers,
    }


def y_axis(data: Data) -> Spec:
    """The value's axis; the unit stands over it, where it costs no width."""
    log = data["log"]
    title = ", ".join(word for word in (data["unit"], "log scale" if log else "") if word) or None
    scale: Spec = {"domain": data["domain"], "nice": False}
    ticks: Spec = {"tickCount": 5}
    if data["ticks"] is not None:
        ticks = {"values": data["ticks"], "format": "~g"}
    elif max(map(abs, data["domain"])) >= 10_000:
        ticks["format"] = "~s"
    scale |= {"type": "log"} if log else {"zero": False}
    named = {"field": "value", "type": "quantitative", "title": title}
    return {**named, "scale": scale, "axis": ticks}


def marks(rows: list[Spec], names: list[str], place: Spec, interpolate: str) -> list[Spec]:
    """Lines, and dots on the short ones."""
    encoding: Spec = {**place, "color": {"value": "@main"}}
    if len(names) > 1:
        columns = {"columns": max(1, 340 // (7 * max(map(len, names)) + 36))}
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
    line: dict[str, Any] = {"type": "line", "strokeWidth": 1.8, "strokeJoin": "round"}
    mark = {**line, "interpolate": interpolate}
    layers = [{"data": {"values": kept}, "mark": mark, "encoding": encoding}]
    if few:
        dot = {"type": "point", "filled": True, "size": 30, "opacity": 1}
        undashed = {name: one for name, one in encoding.items() if name != "strokeDash"}
        layers.append({"data": {"values": few}, "mark": dot, "encoding": undashed})
    return layers


def area(rows: list[Spec], low: str, high: str, x: Spec) -> Spec:
    """The area between two curves."""
    upper = {row["step"]: row["value"] for row in rows if row["series"] == high}
    between = [
        {"step": row["step"], "value": row["value"], "upper": upper[row["step"]]}
        for row in rows
        if row["series"] == low and row["step"] in upper
    ]
    return {
        "data": {"values": between},
        "mark": {"type": "area", "color": "@main", "opacity": 0.18, "line": False},
        "encoding": {
            "x": x,
            "y": {"field": "value", "type": "quantitative"},
            "y2": {"field": "upper"},
        },
    }


def thresholds(data: Data, y: Spec) -> tuple[list[Spec], list[Spec]]:
    """What lies under the curves (tints and rules), and over them (the rules' words)."""
    under: list[Spec] = []
    over: list[Spec] = []
    bottom, top = data["domain"]
    for line in data["lines"]:
        value, above = line["value"], line["above"]
        here = {"values": [{"value": value, "end": top if above else bottom}]}
        colour = "@soft" if above is None else "@limit"
        if above is not None:
            tint = {"type": "rect", "color": "@tint", "opacity": 0.3}
            place = {"y": y, "y2": {"field": "end"}}
            under.append({"data": here, "mark": tint, "encoding": place})
        rule = {"type": "rule", "color": colour, "strokeWidth": 1.2, "strokeDash": [5, 3]}
        under.append({"data": here, "mark": rule, "encoding": {"y": y}})
        below = not data["log"] and value > bottom + 0.9 * (top - bottom)
        text = {"type": "text", "text": line["label"], "align": "right", "dx": -4, "fontSize": 12}
        text["dy"] = 9 if below else -8
        where = {"y": y, "x": {"value": "width"}}
        # The same words in the paper's colour keep curves from crossing the letters.
        halo = {**text, "color": "@paper", "stroke": "@paper", "strokeWidth": 4, "opacity": 0.8}
        over.append({"data": here, "mark": halo, "encoding": where})
        over.append({"data": here, "mark": {**text, "color": colour}, "encoding": where})
    return under, over


def quantity(field: str, title: str | None, scale: Spec, axis: Spec) -> Spec:
    """A quantitative channel."""
    named = {"field": field, "type": "quantitative", "title": title}
    return {**named, "scale": scale, "axis": axis}


def words(text: str) -> Spec:
    """The caption of a frame, over the plot."""
    mark = {"type": "text", "align": "left", "baseline": "bottom", "fontSize": 12, "color": "@ink"}
    place = {"x": {"value": 62}, "y": {"value": -6}, "text": {"value": text}}
    return {"data": {"values": [{}]}, "mark": mark, "encoding": place}


def reliability(data: Data) -> Spec:
    """Accuracy in each confidence bin against the diagonal, counts below."""
    frame = data["frames"][-1]
    rows = [dict(zip(BINS, cells, strict=True)) for cells in frame["bins"]]
    ticks = {"values": FIFTHS, "format": ".1f", "labelOverlap": False}
    bare = {"values": FIFTHS, "labels": False, "ticks": False}
    accuracy = quantity("accuracy", "accuracy", UNIT, ticks)
    # Without y2 a bar from x to x2 has no foot and is drawn as a thin tick.
    bar_place = {"x": quantity("lower", None, UNIT, bare), "x2": {"field": "upper"}}
    foot = {"y2": {"datum": 0}}
    bar = {"type": "bar", "color": "@main", "stroke": "@paper"}
    corners = {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]}
    dot_place = {"x": quantity("confidence", None, UNIT, bare), "y": accuracy}
    dot = {"type": "point", "color": "@main", "filled": True, "opacity": 1, "size": 55}
    diagonal = {"type": "line", "color": "@ink", "strokeDash": [5, 4], "strokeWidth": 1.3}
    diagram: Spec = {
        "width": WIDTH,
        "height": HEIGHT - STRIP,
        "layer": [
            {
                "mark": {**bar, "opacity": 0.4},
                "encoding": {**bar_place, "y": accuracy, **foot},
            },
            {"data": corners, "mark": diagonal, "encoding": dot_place},
            {"mark": dot, "encoding": dot_place},
            words(frame["caption"]),
        ],
    }
    count = quantity("count", "rows", {}, {"tickCount": 2, "labelExpr": SHORT})
    x = quantity("lower", "confidence", UNIT, ticks)
    histogram: Spec = {
        "width": WIDTH,
        "height": STRIP,
        "layer": [
            {
                "mark": {"type": "bar", "color": "@axis", "stroke": "@paper"},
                "encoding": {**bar_place, "x": x, "y": count, **foot},
            },
            {
                "transform": [
                    {"calculate": "(datum.lower + datum.upper) / 2", "as": "x"},
                    {"calculate": LABEL, "as": "label"},
                ],
                "mark": {"type": "text", "dy": -6, "fontSize": 9, "color": "@soft"},
                "encoding": {
                    "x": quantity("x", "confidence", UNIT, ticks),
                    "y": count,
                    "text": {"field": "label", "type": "nominal"},
                },
            },
        ],
    }
    return {"data": {"values": rows}, "vconcat": [diagram, histogram], "spacing": 20}


def heat_map(data: Data) -> Spec:
    """A square for each head of each layer, dark where it looks at one token only."""
    frame, layers, heads = data["frames"][-1], data["layers"], data["heads"]
    rows = [
        {"layer": layers[layer], "head": heads[head], "fraction": fraction}
        for layer, head, fraction in frame["cells"]
    ]
    colour = {
        "field": "fraction",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "scheme": "viridis"},
        "legend": {"orient": "right", "gradientLength": 120, "format": ".1f"}
        | {"labelColor": "@soft"},
    }
    place = {
        "x": {"field": "head", "type": "ordinal", "axis": {"labelAngle": 0}, "sort": heads}
        | {"title": "head (a row is a layer)"},
        "y": {"field": "layer", "type": "ordinal", "sort": layers, "title": None}
        | {"axis": {"minExtent": 0, "maxExtent": 130, "labelLimit": 120}},
    }
    square = {"type": "rect", "stroke": "@paper"}
    return {
        "width": WIDTH,
        "height": max(90, min(HEIGHT, 34 * len(layers))),
        "data": {"values": rows},
        "layer": [
            {"mark": square, "encoding": {**place, "color": colour}},
            words(frame["caption"]),
        ],
    }


def plane(data: Data) -> Spec:
    """Each layer's path, epoch by epoch."""
    rows = [
        {"layer": one["name"], "epoch": epoch, "itx": x, "ity": y}
        for one in data["series"]
        for x, y, epoch in zip(one["x"], one["y"], one["epoch"], strict=True)
    ]
    encoding = {
        "x": quantity("itx", data["titles"]["x"], {"zero": False}, {}),
        "y": quantity("ity", data["titles"]["y"], {"zero": False}, {}),
        "color": {"field": "layer", "type": "nominal"},
        "order": {"field": "epoch", "type": "quantitative"},
    }
    mark = {"type": "line", "point": {"size": 30}, "strokeWidth": 1.2}
    spec = {"width": WIDTH, "height": HEIGHT, "data": {"values": rows}}
    return {**spec, "mark": mark, "encoding": encoding}


def scatter(data: Data) -> Spec:
    """Runs as points, and the law through them with its interval."""
    points: list[Spec] = []
    lines: list[Spec] = []
    bands: list[Spec] = []
    for one in data["series"]:
        name = {"group": one["name"]}
        points += [{**name, "x": x, "y": y} for x, y in zip(one["x"], one["y"], strict=True)]
        lines += [{**name, "x": x, "y": y} for x, y in one["line"]]
        bands += [{**name, "x": x, "y": low, "high": high} for x, low, high in one["band"]]
    across, up = data["x"], data["y"]
    log = up["ticks"] is not None
    place: Spec = {
        "x": quantity(
            "x",
            f"{data['titles']['x']}, log scale",
            {"type": "log", "domain": across["domain"], "nice": False},
            {"values": across["ticks"], "format": "~g" if across["domain"][0] < 1e-3 else "~s"}
            | {"grid": False},
        ),
        "y": quantity(
            "y",
            ", ".join([data["titles"]["y"], *(["log scale"] if log else [])]),
            {"domain": up["domain"], "nice": False} | ({"type": "log"} if log else {"zero": False}),
            {"values": up["ticks"], "format": "~g"} if log else {"tickCount": 5},
        ),
        "color": {"value": "@main"},
    }
    names = [one["name"] for one in data["series"]]
    if len(names) > 1:
        legend = {"columns": max(1, 340 // (7 * max(map(len, names)) + 36))}
        colour = {"field": "group", "type": "nominal", "legend": legend}
        place["color"] = {**colour, "scale": {"domain": names}}
    area = {"type": "area", "color": "@main", "opacity": 0.18, "line": False, "clip": True}
    between = {"x": place["x"], "y": place["y"], "y2": {"field": "high"}}
    line = {"type": "line", "strokeWidth": 1.8, "clip": True}
    dot = {"type": "point", "filled": True, "size": 34, "opacity": 1}
    layers: list[Spec] = [{"data": {"values": bands}, "mark": area, "encoding": between}]
    layers.append({"data": {"values": lines}, "mark": line, "encoding": place})
    layers.append({"data": {"values": points}, "mark": dot, "encoding": place})
    return {"width": WIDTH, "height": HEIGHT, "layer": layers}
