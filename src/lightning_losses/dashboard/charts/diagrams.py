# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Charts of tables, as Vega-Lite: reliability diagram, heat map, information plane."""

from __future__ import annotations

from lightning_losses.dashboard.charts.curves import Chart, tidy
from lightning_losses.dashboard.charts.theme import HEIGHT, STRIP, WIDTH, Spec
from lightning_losses.dashboard.runs.run import Cell, Rows

BINS = ("stage", "epoch", "lower", "upper", "count", "confidence", "accuracy")
HEADS = ("step", "layer", "head", "entropy_fraction")
PLANE = ("epoch", "layer", "itx", "ity")
FIFTHS = [0, 0.2, 0.4, 0.6, 0.8, 1]
UNIT = {"domain": [0, 1], "nice": False}
SHORT = "datum.value ? format(datum.value, '~s') : '0'"  # 0, 500, 1k
LABEL = "datum.count < 1000 ? datum.count : format(datum.count, '.2~s')"  # bins are narrow


def complete(rows: Rows, columns: tuple[str, ...]) -> Rows:
    """The rows in which every one of the columns has a value, all but text as numbers."""
    return [
        row
        for row in rows
        if all(row.get(name) is not None for name in columns)
        and all(isinstance(row[name], float) for name in columns if name not in TEXT)
    ]


TEXT = ("stage", "layer", "head")


def stages(rows: Rows) -> list[str]:
    """The stages that a reliability table holds rows of, in the order of writing."""
    return list(dict.fromkeys(str(row["stage"]) for row in filled(rows)))


def filled(rows: Rows) -> Rows:
    """The bins that hold rows."""
    return [row for row in complete(rows, BINS) if as_float(row["count"]) > 0]


def as_float(cell: Cell) -> float:
    """A cell that `complete` has let through."""
    assert isinstance(cell, float)
    return cell


def reliability(rows: Rows, stage: str) -> Chart:
    """Accuracy in each confidence bin against the diagonal, counts below, a slider over epochs."""
    bins = [row for row in filled(rows) if row["stage"] == stage]
    if not bins:
        return Chart(None, [])
    epochs = sorted({as_float(row["epoch"]) for row in bins})
    data, captions = [], []
    for number, epoch in enumerate(epochs, 1):
        here = {as_float(row["lower"]): row for row in bins if row["epoch"] == epoch}
        for row in here.values():
            numbers = {name: tidy(as_float(row[name])) for name in BINS[2:]}
            data.append({"at": number, **numbers})
        captions.append({"at": number, "text": caption(list(here.values()), stage, epoch)})
    here_only = [{"filter": "datum.at == at"}]
    ticks = {"values": FIFTHS, "format": ".1f", "labelOverlap": False}
    bare = {"values": FIFTHS, "labels": False, "ticks": False}
    accuracy = quantity("accuracy", "accuracy", UNIT, ticks)
    tip = [
        {"field": "confidence", "type": "quantitative", "format": ".3f"},
        {"field": "accuracy", "type": "quantitative", "format": ".3f"},
        {"field": "count", "type": "quantitative", "format": ",d", "title": "rows"},
    ]
    # Without y2 a bar from x to x2 has no foot and is drawn as a thin tick.
    bar_place = {"x": quantity("lower", None, UNIT, bare), "x2": {"field": "upper"}}
    foot = {"y2": {"datum": 0}, "tooltip": tip}
    bar = {"type": "bar", "color": "@main", "stroke": "@paper"}
    corners = {"values": [{"confidence": 0, "accuracy": 0}, {"confidence": 1, "accuracy": 1}]}
    dot_place = {"x": quantity("confidence", None, UNIT, bare), "y": accuracy}
    diagram: Spec = {
        "width": WIDTH,
        "height": HEIGHT - STRIP,
        "layer": [
            {
                "transform": here_only,
                "mark": {**bar, "opacity": 0.4},
                "encoding": {**bar_place, "y": accuracy, **foot},
            },
            {
                "data": corners,
                "mark": {"type": "line", "color": "@ink", "strokeDash": [5, 4], "strokeWidth": 1.3},
                "encoding": dot_place,
            },
            {
                "transform": here_only,
                "mark": {"type": "point", "color": "@main", "filled": True, "opacity": 1}
                | {"size": 55},
                "encoding": {**dot_place, "tooltip": tip},
            },
            words(captions, here_only),
        ],
    }
    count = quantity("count", "rows", {}, {"tickCount": 2, "labelExpr": SHORT})
    x = quantity("lower", "confidence", UNIT, ticks)
    histogram: Spec = {
        "width": WIDTH,
        "height": STRIP,
        "layer": [
            {
                "transform": here_only,
                "mark": {"type": "bar", "color": "@axis", "stroke": "@paper"},
                "encoding": {**bar_place, "x": x, "y": count, **foot},
            },
            {
                "transform": [
                    *here_only,
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
    spec = {"data": {"values": data}, "vconcat": [diagram, histogram], "spacing": 20}
    return Chart({"params": [slider(len(epochs), "epoch")], **spec}, [], stage)


def caption(bins: Rows, stage: str, epoch: float) -> str:
    """Which epoch this is, and the mean gap that the diagram shows."""
    total = sum(as_float(row["count"]) for row in bins)
    gap = sum(
        as_float(row["count"]) * abs(as_float(row["accuracy"]) - as_float(row["confidence"]))
        for row in bins
    )
    return f"{stage}, epoch {epoch:g}: mean gap {gap / total:.3f}, {total:,.0f} rows"


def words(captions: list[Spec], here_only: list[Spec]) -> Spec:
    """The caption of what the slider points at, over the plot."""
    mark = {"type": "text", "align": "left", "baseline": "bottom", "fontSize": 12, "color": "@ink"}
    place = {"x": {"value": 62}, "y": {"value": -6}, "text": {"field": "text", "type": "nominal"}}
    return {
        "data": {"values": captions},
        "transform": here_only,
        "mark": mark,
        "encoding": place,
    }


def slider(count: int, what: str) -> Spec:
    """A parameter `at` from 1 to count, moved by a slider where there is something to move."""
    param: Spec = {"name": "at", "value": count}
    if count > 1:
        name = f"{what}, first to last: "
        param["bind"] = {"input": "range", "min": 1, "max": count, "step": 1, "name": name}
    return param


def quantity(field: str, title: str | None, scale: Spec, axis: Spec) -> Spec:
    """A quantitative channel."""
    named = {"field": field, "type": "quantitative", "title": title}
    return {**named, "scale": scale, "axis": axis}


def heat_map(rows: Rows) -> Chart:
    """Attention entropy of layer x head as a fraction of its maximum, a slider over steps."""
    good = complete(rows, HEADS)
    if not good:
        return Chart(None, [])
    steps = sorted({as_float(row["step"]) for row in good})
    numbers = {step: number for number, step in enumerate(steps, 1)}
    data = [
        {
            "at": numbers[as_float(row["step"])],
            "layer": label(row["layer"]),
            "head": label(row["head"]),
            "fraction": tidy(as_float(row["entropy_fraction"])),
        }
        for row in good
    ]
    captions: list[Spec] = [
        {"at": number, "text": f"step {step:,.0f}"} for step, number in numbers.items()
    ]
    here_only = [{"filter": "datum.at == at"}]
    layers = list(dict.fromkeys(row["layer"] for row in data))
    colour = {
        "field": "fraction",
        "type": "quantitative",
        "scale": {"domain": [0, 1], "scheme": "viridis"},
        "legend": {"orient": "right", "gradientLength": 120, "format": ".1f"}
        | {"labelColor": "@soft"},
    }
    place = {
        "x": {"field": "head", "type": "ordinal", "axis": {"labelAngle": 0}, "sort": None}
        | {"title": "head (a row is a layer)"},
        "y": {"field": "layer", "type": "ordinal", "sort": layers, "title": None}
        | {"axis": {"minExtent": 0, "maxExtent": 130, "labelLimit": 120}},
    }
    tip = [{"field": name} for name in ("layer", "head", "fraction")]
    spec = {
        "width": WIDTH,
        "height": max(90, min(HEIGHT, 34 * len(layers))),
        "data": {"values": data},
        "params": [slider(len(steps), "step")],
        "layer": [
            {
                "transform": here_only,
                "mark": {"type": "rect", "stroke": "@paper"},
                "encoding": {**place, "color": colour, "tooltip": tip},
            },
            words(captions, here_only),
        ],
    }
    return Chart(spec, [f"{len(steps)} measured steps"])


def label(cell: Cell) -> str:
    """A layer or head by its number or name."""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def plane(rows: Rows) -> Chart:
    """Each layer's path through the information plane, epoch by epoch."""
    good = complete(rows, PLANE)
    if not good:
        return Chart(None, [])
    data = [
        {"layer": label(row["layer"])}
        | {name: tidy(as_float(row[name])) for name in ("epoch", "itx", "ity")}
        for row in good
    ]
    free = {"zero": False}
    encoding = {
        "x": quantity("itx", "about the input (bits)", free, {}),
        "y": quantity("ity", "about the label (bits)", free, {}),
        "color": {"field": "layer", "type": "nominal"},
        "order": {"field": "epoch", "type": "quantitative"},
        "tooltip": [{"field": name} for name in ("layer", "epoch", "itx", "ity")],
    }
    mark = {"type": "line", "point": {"size": 30}, "strokeWidth": 1.2}
    spec = {"width": WIDTH, "height": HEIGHT, "data": {"values": data}}
    return Chart({**spec, "mark": mark, "encoding": encoding}, [])
