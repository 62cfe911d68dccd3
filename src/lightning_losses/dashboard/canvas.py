# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How the pictures look: sizes, colours, and the marks every panel is made of."""

from __future__ import annotations

import math
from collections.abc import Sequence
from textwrap import wrap
from typing import Any

from lightning_losses.dashboard.readings import Curves, Source

WIDTH, HEIGHT = 460, 250
STRIP, GAP = 60, 14  # a second, low plot under the first; with the gap they are HEIGHT tall
INK, GREY, BLUE, RED, WASH = "#222222", "#9a9a9a", "#0072B2", "#D55E00", "#fdf0e6"
# Okabe and Ito's colours, told apart with any colour vision; dashes once they are used up.
PALETTE = (INK, RED, BLUE, "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
FEW = 40  # points a curve: up to here each is marked, and a curve of one point needs the mark
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
    # The plots of a column stand under each other, and no label pushes a title up.
    "axisY": {"minExtent": 30, "labelFlush": True},
    "legend": {
        "labelFontSize": 12,
        "labelLimit": 0,
        "symbolType": "stroke",
        "symbolStrokeWidth": 2.5,
        "symbolSize": 250,
    },
}


def titled(title: str, advice: str, *facts: str) -> Any:
    """A title with what healthy looks like and what this run did: two lines, so that rows align."""
    import altair as alt

    return alt.Title(title, subtitle=[advice, "; ".join(fact for fact in facts if fact) or " "])


def words(heading: Any, source: Source, columns: Sequence[str], how: str) -> Any:
    """An empty panel that says what is missing and where it comes from."""
    import altair as alt

    reason = source.problem or f"{source.name} has no number in {' or '.join(columns)}"
    text = [*wrap(reason, 58), *wrap(f"({how})", 58)]
    mark = alt.Chart(alt.InlineData(values=[{}])).mark_text(
        text=text, fontSize=14, lineHeight=21, color="#555555", baseline="middle"
    )
    placed = mark.encode(x=alt.value(WIDTH / 2), y=alt.value((HEIGHT - 21 * len(text)) / 2))
    view = alt.ViewBackground(fill="#f6f6f6", cornerRadius=4)
    return placed.properties(title=heading, width=WIDTH, height=HEIGHT, view=view)


def step_axis(curves: Curves, labelled: bool = True) -> Any:
    """The optimiser step, in whole numbers."""
    import altair as alt

    title = "step" if curves.window == 1 else f"step (a point is {curves.window} values)"
    return alt.X(
        "step:Q",
        title=title if labelled else None,
        scale=alt.Scale(zero=False, nice=False),
        axis=alt.Axis(
            tickCount=6, tickMinStep=1, labels=labelled, ticks=labelled, format=",d", grid=False
        ),
    )


def log_axis(title: str, low: float, high: float) -> Any:
    """Values from `low` to `high`, both above zero."""
    import altair as alt

    return alt.Y(
        "value:Q",
        title=title,
        scale=alt.Scale(type="log", domain=[low, high], nice=False),
        axis=alt.Axis(values=log_ticks(low, high), format="~g"),
    )


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten, with 2 and 5 between them where there is room, at most about eight."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    marks = (1, 2, 5) if high / low < 300 else (1,)
    every = 1 + (last - first) // 9
    powers = [power for power in range(first, last + 1) if power % every == 0]
    ticks = [mark * 10.0**power for power in powers for mark in marks]
    return [tick for tick in ticks if low <= tick <= high]


def lines(chart: Any, curves: Curves, height: int) -> Any:
    """The chart's curves as lines, with dots on the short ones."""
    size = curves.rows.groupby("series")["value"].transform("size")
    line = chart.mark_line(strokeWidth=1.6, strokeJoin="round")
    few = chart.properties(data=curves.rows[size <= FEW])
    dots = few.mark_point(filled=True, size=34, opacity=1)
    return (line + dots).properties(width=WIDTH, height=height)


def lost(curves: Curves) -> str:
    """What was in the file and is not in the picture."""
    return f"{curves.not_finite} NaN or infinite not drawn" if curves.not_finite else ""
