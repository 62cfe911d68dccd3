# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Custom chart presets for Weights & Biases: diagrams of the last logged table, with tooltips."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lightning_losses.dashboard.charts.theme import Spec

SCHEMA = "https://vega.github.io/schema/vega-lite/v5.json"
UNIT = {"domain": [0, 1], "nice": False}


def presets() -> dict[str, tuple[str, Spec]]:
    """Display name and spec by the table that is drawn."""
    return {
        "reliability": ("Reliability diagram", reliability()),
        "attention_entropy": ("Attention entropy by layer and head", heat_map()),
    }


def preset_name(table: str, spec: Spec) -> str:
    """A name that changes with the spec: a preset that exists is the same and needs no update."""
    digest = hashlib.sha256(json.dumps(spec, sort_keys=True).encode()).hexdigest()[:8]
    return f"lightning-losses-{table.replace('_', '-')}-{digest}"


def field(name: str, **more: Any) -> Spec:
    """A quantitative channel; W&B puts the table's column where `${field:name}` stands."""
    return {"field": f"${{field:{name}}}", "type": "quantitative", **more}


def reliability() -> Spec:
    """Accuracy of each bin against the diagonal, counts below; a column of plots a stage."""
    only_filled = [{"filter": "datum['${field:count}'] > 0"}]
    place = {
        "x": field("lower", title="confidence", scale=UNIT),
        "x2": {"field": "${field:upper}"},
    }
    tip = [field(name) for name in ("confidence", "accuracy", "count")]
    bars = {
        "transform": only_filled,
        "mark": {"type": "bar", "opacity": 0.4, "stroke": "white"},
        "encoding": {
            **place,
            "y": field("accuracy", title="accuracy", scale=UNIT),
            "y2": {"datum": 0},  # without it a bar from x to x2 is a thin tick
            "tooltip": tip,
        },
    }
    diagonal = {
        "data": {"values": [{"at": 0}, {"at": 1}]},
        "mark": {"type": "line", "strokeDash": [5, 4], "color": "black"},
        "encoding": {
            "x": {"field": "at", "type": "quantitative", "title": "confidence"},
            "y": {"field": "at", "type": "quantitative", "title": "accuracy"},
        },
    }
    dots = {
        "transform": only_filled,
        "mark": {"type": "point", "filled": True, "size": 50, "opacity": 1},
        "encoding": {
            "x": field("confidence", title="confidence"),
            "y": field("accuracy", title="accuracy"),
            "tooltip": tip,
        },
    }
    counts = {
        "mark": {"type": "bar", "color": "#9aa4af", "stroke": "white"},
        "encoding": {
            **place,
            "y": field("count", title="rows"),
            "y2": {"datum": 0},
            "tooltip": tip,
        },
    }
    by_stage = {"column": {"field": "${field:stage}", "type": "nominal", "title": None}}
    diagram = {"width": 320, "height": 240, "layer": [bars, diagonal, dots]}
    strip = {"width": 320, "height": 60, **counts}
    return {
        "$schema": SCHEMA,
        "data": {"name": "wandb"},
        "vconcat": [{"facet": by_stage, "spec": diagram}, {"facet": by_stage, "spec": strip}],
    }


def heat_map() -> Spec:
    """A square for each head, dark where it looks at one token only."""
    return {
        "$schema": SCHEMA,
        "data": {"name": "wandb"},
        "mark": {"type": "rect", "stroke": "white"},
        "encoding": {
            "x": {"field": "${field:head}", "type": "ordinal", "title": "head"},
            "y": {"field": "${field:layer}", "type": "ordinal", "title": "layer", "sort": None},
            "color": field(
                "entropy_fraction",
                title="entropy, of the largest",
                scale={"domain": [0, 1], "scheme": "viridis"},
            ),
            "tooltip": [
                {"field": "${field:layer}", "type": "nominal"},
                {"field": "${field:head}", "type": "nominal"},
                field("entropy_fraction"),
            ],
        },
    }
