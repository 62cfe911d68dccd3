# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From scores to words and pictures: what the numbers say about a claim, lines and dots."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from study import Claim, Scores, markdown, number

INK, GREY = "#222222", "#9a9a9a"
# Okabe and Ito's colours, told apart with any colour vision; as many methods a picture at most.
PALETTE = (INK, "#D55E00", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", GREY)
STYLE: dict[str, Any] = {
    "background": "white",
    "font": "Liberation Sans, Arial, Helvetica, sans-serif",
    "view": {"stroke": None},
    "axis": {
        "labelFontSize": 12,
        "titleFontSize": 12,
        "titleFontWeight": "normal",
        "titleColor": INK,
        "labelColor": INK,
        "gridColor": "#ececec",
        "domainColor": GREY,
        "tickColor": GREY,
        "labelFlush": False,
    },
    "title": {
        "anchor": "start",
        "fontSize": 17,
        "color": INK,
        "subtitleFontSize": 12.5,
        "subtitleColor": "#555555",
        "subtitlePadding": 5,
        "offset": 12,
    },
    "axisY": {"minExtent": 30, "labelFlush": True},
    "legend": {
        "labelFontSize": 12,
        "labelLimit": 0,
        "symbolType": "stroke",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 250,
    },
}


def verdict(differences: Sequence[float]) -> tuple[str, str]:
    """What paired differences, positive where the claim holds, say about it; their 95 % interval.

    The interval is Student's: differences of a few seeds have a standard error of their own.
    """
    mean = fmean(differences)
    if len(differences) < 2:
        return "one seed says nothing", f"{mean:+.3f}"
    from scipy.stats import t  # type: ignore[import-untyped]

    n = len(differences)
    half = float(t.ppf(0.975, n - 1)) * stdev(differences) / sqrt(n)
    words = "shown" if mean > half else "the opposite" if mean < -half else "not told apart"
    return words, f"{mean:+.3f} ± {half:.3f}"


def claims(claimed: Sequence[Claim], scores: Scores) -> str:
    """A table of claims: the two means, their paired difference over seeds, and the verdict."""
    rows = []
    for claim in claimed:
        ours = scores[claim.method][claim.column]
        if isinstance(claim.baseline, str):
            base = scores[claim.baseline][claim.baseline_column or claim.column]
        else:
            base = [claim.baseline] * len(ours)
        pairs = zip(ours, base, strict=True)
        words, _ = verdict([claim.sign * (a - b) + claim.margin for a, b in pairs])
        _, interval = verdict([a - b for a, b in zip(ours, base, strict=True)])
        means = f"{number(fmean(ours))} against {number(fmean(base))}"
        rows.append([claim.words, f"{claim.column}: {means}", interval, f"**{words}**"])
    head = ["claim", "means", "difference, 95 % interval over seeds", "at this scale"]
    return markdown(head, rows)


def figure(chart: Any, path: Path) -> None:
    """Write an altair chart as PNG in the style of the dashboard."""
    import altair as alt
    import vl_convert

    with alt.data_transformers.enable("default", max_rows=None):
        spec = chart.configure(**STYLE, padding=16).to_dict()
    path.write_bytes(squeezed(vl_convert.vegalite_to_png(spec, scale=1.5)))


def squeezed(png: bytes) -> bytes:
    """The same picture in a quarter of the bytes: vl-convert packs for speed, not for size."""
    chunks, data, at = [], b"", 8
    while at < len(png):
        size = int.from_bytes(png[at : at + 4], "big")
        kind, body = png[at + 4 : at + 8], png[at + 8 : at + 8 + size]
        data += body if kind == b"IDAT" else b""
        chunks += [(kind, body)] if kind != b"IDAT" else []
        at += size + 12
    chunks.insert(-1, (b"IDAT", zlib.compress(zlib.decompress(data), 9)))  # before IEND
    return png[:8] + b"".join(
        len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")
        for kind, body in chunks
    )


def colours(methods: Sequence[str]) -> Any:
    """One colour a method, in the order of the table; told apart with any colour vision."""
    import altair as alt

    return alt.Scale(domain=list(methods), range=list(PALETTE))


def lines(
    rows: Sequence[dict[str, Any]],
    x: str,
    y: str,
    title: Any,
    low: float | None = None,
    width: int = 520,
    height: int = 300,
    log: str = "",
) -> Any:
    """Mean over seeds of `y` by `x`, one line a method; rows hold method, x, y, one a seed.

    What is below `low` is not drawn; axes named in `log` ("x", "y", "xy") are logarithmic.
    """
    import altair as alt

    cells: dict[tuple[str, float], list[float]] = {}
    for row in rows:
        cells.setdefault((row["method"], row[x]), []).append(row[y])
    means = {cell: fmean(values) for cell, values in cells.items()}
    data = [{"method": m, "x": at, "y": mean} for (m, at), mean in means.items()]
    methods = list(dict.fromkeys(row["method"] for row in rows))
    top = max(means.values())
    domain = None if low is None else [low, top + 0.03 * (top - low)]
    kind = "log" if "y" in log else "linear"
    y_scale: dict[str, Any] = {"type": kind, "zero": False}
    if domain is not None:
        y_scale = {"type": kind, "domain": domain, "nice": False}
    x_scale: dict[str, Any] = {"type": "log", "nice": False} if "x" in log else {}
    x_axis: dict[str, Any] = {"grid": False}
    if "x" in log:  # what was tried, or whole decades: vega's own labels overlap
        tried = sorted({float(at) for _, at in means})
        decades = [10.0**k for k in range(-9, 10) if tried[0] <= 10.0**k <= tried[-1]]
        x_axis |= {"values": tried if len(tried) < 7 else decades, "format": "~g"}
    return (
        alt.Chart(alt.InlineData(values=data))
        .mark_line(strokeWidth=1.8, strokeJoin="round", clip=True)
        .encode(
            x=alt.X("x:Q", title=x, axis=alt.Axis(**x_axis), scale=alt.Scale(**x_scale)),
            y=alt.Y("y:Q", title=y, scale=alt.Scale(**y_scale)),
            color=alt.Color("method:N", title=None, scale=colours(methods), sort=methods),
        )
        .properties(title=title, width=width, height=height)
    )


def dots(
    scores: Scores,
    columns: Sequence[str],
    title: Any,
    width: int = 260,
    domain: Sequence[float] | None = None,
) -> Any:
    """A panel a column: each seed a dot, the mean a bar, methods from top to bottom."""
    import altair as alt

    methods = list(scores)
    panels: list[Any] = []
    for column in columns:
        data = [{"method": m, "value": v} for m in methods for v in scores[m][column]]
        base = alt.Chart(alt.InlineData(values=data)).encode(
            y=alt.Y(
                "method:N",
                sort=methods,
                title=None,
                # Names once, at the left; the rows of all panels are the same.
                axis=alt.Axis(
                    labels=not panels, ticks=False, domain=False, labelLimit=0, labelFlush=False
                ),
            )
        )
        scale = alt.Scale(zero=False) if domain is None else alt.Scale(domain=list(domain))
        x = alt.X("value:Q", title=column, scale=scale, axis=alt.Axis(tickCount=5))
        seeds = base.mark_point(filled=True, size=36, opacity=0.75, color=GREY).encode(x=x)
        mean = base.mark_tick(thickness=3, size=18, color=INK).encode(x=alt.X("mean(value):Q"))
        panels.append((seeds + mean).properties(width=width, height=26 * len(methods)))
    return alt.hconcat(*panels, title=title, spacing=24)
