# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Diagrams of tables, as plain data: reliability diagram, heat map, information plane."""

from __future__ import annotations

from typing import Any

from lightning_losses.dashboard.charts.curves import Chart, tidy
from lightning_losses.dashboard.runs.run import Cell, Rows

BINS = ("stage", "epoch", "lower", "upper", "count", "confidence", "accuracy")
HEADS = ("step", "layer", "head", "entropy_fraction")
PLANE = ("epoch", "layer", "itx", "ity")
TEXT = ("stage", "layer", "head")


def complete(rows: Rows, columns: tuple[str, ...]) -> Rows:
    """The rows in which every one of the columns has a value, all but text as numbers."""
    return [
        row
        for row in rows
        if all(row.get(name) is not None for name in columns)
        and all(isinstance(row[name], float) for name in columns if name not in TEXT)
    ]


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
    """Accuracy in each confidence bin against the diagonal, and the counts; a frame an epoch."""
    bins = [row for row in filled(rows) if row["stage"] == stage]
    if not bins:
        return Chart(None, [])
    frames = []
    for epoch in sorted({as_float(row["epoch"]) for row in bins}):
        here = {as_float(row["lower"]): row for row in bins if row["epoch"] == epoch}
        cells = [[tidy(as_float(row[name])) for name in BINS[2:]] for row in here.values()]
        frames.append({"caption": caption(list(here.values()), stage, epoch), "bins": cells})
    return Chart({"kind": "reliability", "over": "epoch", "frames": frames}, [], stage)


def caption(bins: Rows, stage: str, epoch: float) -> str:
    """Which epoch this is, and the mean gap that the diagram shows."""
    total = sum(as_float(row["count"]) for row in bins)
    gap = sum(
        as_float(row["count"]) * abs(as_float(row["accuracy"]) - as_float(row["confidence"]))
        for row in bins
    )
    return f"{stage}, epoch {epoch:g}: mean gap {gap / total:.3f}, {total:,.0f} rows"


def heat_map(rows: Rows) -> Chart:
    """Attention entropy of layer x head as a fraction of its maximum; a frame a step."""
    good = complete(rows, HEADS)
    if not good:
        return Chart(None, [])
    layers = list(dict.fromkeys(label(row["layer"]) for row in good))
    heads = list(dict.fromkeys(label(row["head"]) for row in good))
    by_step: dict[float, list[list[Any]]] = {}
    for row in good:
        place = [layers.index(label(row["layer"])), heads.index(label(row["head"]))]
        cell = [*place, tidy(as_float(row["entropy_fraction"]))]
        by_step.setdefault(as_float(row["step"]), []).append(cell)
    frames = [{"caption": f"step {step:,.0f}", "cells": by_step[step]} for step in sorted(by_step)]
    data = {"kind": "heat_map", "over": "step", "layers": layers, "heads": heads}
    return Chart({**data, "frames": frames}, [f"{len(frames)} measured steps"])


def label(cell: Cell) -> str:
    """A layer or head by its number or name."""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)


def plane(rows: Rows) -> Chart:
    """Each layer's path through the information plane, epoch by epoch."""
    good = sorted(complete(rows, PLANE), key=lambda row: as_float(row["epoch"]))
    if not good:
        return Chart(None, [])
    paths: dict[str, dict[str, Any]] = {}
    for row in good:
        name = label(row["layer"])
        path = paths.setdefault(name, {"name": name, "x": [], "y": [], "epoch": []})
        for key, column in (("x", "itx"), ("y", "ity"), ("epoch", "epoch")):
            path[key].append(tidy(as_float(row[column])))
    axes = {"x": "about the input (bits)", "y": "about the label (bits)"}
    return Chart({"kind": "plane", "titles": axes, "series": list(paths.values())}, [])
