# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Is the model as often right as it is confident: the reliability diagram of a table of bins."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from lightning_losses.dashboard.canvas import (
    BLUE,
    GAP,
    GREY,
    HEIGHT,
    INK,
    STRIP,
    WIDTH,
    titled,
    words,
)
from lightning_losses.dashboard.readings import Source

if TYPE_CHECKING:
    import pandas as pd

BINS = ("stage", "epoch", "lower", "upper", "count", "confidence", "accuracy")
SHORT = "datum.value ? format(datum.value, '~s') : '0'"  # 0, 500, 1k


def reliability_panel(source: Source) -> Any:
    """Accuracy in each confidence bin against the diagonal, and the rows in each bin under it."""
    import altair as alt

    advice = "healthy: dots on the diagonal; below it the model is more confident than right"
    bins = None if source.cells is None else last_epoch(source.cells)
    if bins is None or bins.empty:
        return words(
            titled("Reliability", advice), source, ["count"], "the calibration callback writes it"
        )
    stage, epoch, rows = bins["stage"].iloc[0], bins["epoch"].iloc[0], bins["count"].sum()
    error = float((bins["count"] * (bins["accuracy"] - bins["confidence"]).abs()).sum() / rows)
    unit = alt.Scale(domain=[0, 1], nice=False)
    fifths = [0, 0.2, 0.4, 0.6, 0.8, 1]
    ticks = alt.Axis(values=fifths, format=".1f", labelOverlap=False)
    bare = alt.Axis(values=fifths, labels=False, ticks=False)
    count = alt.Y("count:Q", title="rows", axis=alt.Axis(tickCount=2, labelExpr=SHORT))
    accuracy = alt.Y("accuracy:Q", scale=unit, title="accuracy", axis=ticks)
    base = alt.Chart(bins).encode(x2="upper:Q")
    # Without y2 a bar from x to x2 has no foot and is drawn as a thin tick.
    bars = base.mark_bar(color=BLUE, opacity=0.4, stroke="white").encode(
        x=alt.X("lower:Q", scale=unit, title=None, axis=bare),
        y=accuracy,
        y2=alt.datum(0),
    )
    corners = alt.Chart(alt.InlineData(values=[{"accuracy": 0}, {"accuracy": 1}]))
    diagonal = corners.mark_line(color=INK, strokeDash=[5, 4], strokeWidth=1.3)
    dots = alt.Chart(bins).mark_point(color=BLUE, filled=True, size=60, opacity=1)
    diagram = bars + diagonal.encode(x="accuracy:Q", y=accuracy)
    diagram += dots.encode(x="confidence:Q", y=accuracy)
    foot = base.mark_bar(color=GREY, stroke="white").encode(
        x=alt.X("lower:Q", scale=unit, title="confidence", axis=ticks), y=count, y2=alt.datum(0)
    )
    wide = bins[(bins["upper"] - bins["lower"]) * WIDTH > 24]
    wide = wide.assign(middle=(wide["lower"] + wide["upper"]) / 2)
    numbers = alt.Chart(wide).mark_text(dy=-7, fontSize=11, color=INK)
    numbers = numbers.encode(x="middle:Q", y=count, text=alt.Text("count:Q", format=".3~s"))
    gap = f"mean gap between confidence and accuracy {error:.3f}, {rows:,.0f} rows"
    return alt.vconcat(
        diagram.properties(width=WIDTH, height=HEIGHT - STRIP - GAP),
        (foot + numbers).properties(width=WIDTH, height=STRIP),
        spacing=GAP,
        title=titled(f"Reliability, {stage} epoch {epoch:g}", advice, gap),
    )


def last_epoch(cells: pd.DataFrame) -> pd.DataFrame:
    """The bins that hold rows, of the last epoch; of several stages there, `val` or the last."""
    import numpy as np
    import pandas as pd

    numbers = cells[list(BINS[1:])].apply(pd.to_numeric, errors="coerce").astype(float)
    usable = np.isfinite(numbers).all(axis=1) & (numbers["count"] > 0)
    bins = numbers.assign(stage=cells["stage"])[usable]
    bins = bins[bins["epoch"] == bins["epoch"].max()]
    stages = list(bins["stage"])
    return bins[bins["stage"] == ("val" if "val" in stages else stages[-1])] if stages else bins
