# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How charts look, on white and on black: colours by role, fonts, axes."""

from __future__ import annotations

import json
from typing import Any

Spec = dict[str, Any]
WIDTH, HEIGHT, STRIP = 460, 240, 56
POINTS = 600  # of a curve: more do not show at the width of a panel
FEW = 40  # points a curve: up to here each is marked, and a curve of one point needs the mark

# A spec names colours by role ("@ink"); `coloured` puts those of a theme. Curves have Okabe and
# Ito's colours, told apart with any colour vision; the dark theme's are the same hues, lighter.
THEMES: dict[str, dict[str, Any]] = {
    "light": {
        "@paper": "#ffffff",
        "@ink": "#1f2328",
        "@soft": "#59636e",
        "@grid": "#eaeef2",
        "@axis": "#9aa4af",
        "@main": "#0072B2",
        "@limit": "#c24d00",
        "@tint": "#f6c9a8",
        "curves": ["#0072B2", "#D55E00", "#009E73", "#CC79A7", "#B8860B", "#56B4E9", "#1f2328"],
    },
    "dark": {
        "@paper": "#161b22",
        "@ink": "#e6edf3",
        "@soft": "#9da7b3",
        "@grid": "#2a313a",
        "@axis": "#57606a",
        "@main": "#5db2ec",
        "@limit": "#ff9d5c",
        "@tint": "#6b3a17",
        "curves": ["#5db2ec", "#ff9d5c", "#3fc79a", "#e39bc5", "#e6b93d", "#9adcf7", "#e6edf3"],
    },
}

CONFIG: Spec = {
    "background": "@paper",
    "font": "system-ui, 'Liberation Sans', Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "range": {"category": "@curves"},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleColor": "@soft",
        "labelColor": "@soft",
        "gridColor": "@grid",
        "domainColor": "@axis",
        "tickColor": "@axis",
    },
    # The plots of a column stand under each other, whatever their labels.
    "axisY": {"minExtent": 38, "maxExtent": 38, "titleAnchor": "end", "titleAngle": 0}
    | {"titleAlign": "left", "titleX": -38, "titleY": -12},
    "title": {
        "anchor": "start",
        "frame": "group",
        "fontSize": 16,
        "color": "@ink",
        "subtitleFontSize": 12,
        "subtitleColor": "@soft",
        "subtitlePadding": 5,
        "offset": 26,
    },
    "legend": {
        "title": None,
        "orient": "bottom",
        "labelFontSize": 12,
        "labelColor": "@ink",
        "labelLimit": 300,
        "symbolType": "stroke",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 250,
        "columnPadding": 14,
    },
}


def coloured(spec: Spec, theme: str = "light") -> Spec:
    """A spec with this look, ready to render outside a browser."""
    text = json.dumps({**spec, "config": CONFIG})
    for role, colour in THEMES[theme].items():
        name = role if role.startswith("@") else f"@{role}"
        text = text.replace(json.dumps(name), json.dumps(colour))
    done: Spec = json.loads(text)
    return done


def headed(spec: Spec, title: str, lines: list[str]) -> Spec:
    """A spec with its title and what a reader must know, for a picture that stands alone."""
    return {**spec, "title": {"text": title, "subtitle": lines}}
