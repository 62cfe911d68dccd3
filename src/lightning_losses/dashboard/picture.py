# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One PNG that says how a training run went: losses, entropy, reliability, step radius."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from lightning_losses.dashboard.canvas import (
    BLUE,
    GAP,
    HEIGHT,
    PALETTE,
    RED,
    STRIP,
    STYLE,
    WASH,
    WIDTH,
    lines,
    log_axis,
    lost,
    step_axis,
    titled,
    words,
)
from lightning_losses.dashboard.readings import Source, read, read_curves, thin
from lightning_losses.dashboard.reliability import BINS, reliability_panel

__all__ = ["training_picture"]


def training_picture(metrics_csv: Path, out: Path, reliability_csv: Path | None = None) -> Path:
    """Draw a run's `metrics.csv` as four panels in one PNG and return where it is.

    What is not there (a file, a column, a number) becomes a sentence in its panel, never an
    exception. NaN and infinite values are not drawn; the panel says how many there were.

    Args:
        metrics_csv: as Lightning's CSVLogger writes it: a column `step`, then one a metric. Drawn:
            `train/loss`, `val/loss`, `train/loss/<term>`, `entropy/mean` (nats), `entropy/ratio`
            and `step_radius/r`.
        out: the PNG to write; missing folders are made.
        reliability_csv: one row a bin with the columns stage, epoch, lower, upper, count,
            confidence, accuracy (fractions). The last epoch is drawn; of several stages, `val`.

    Raises:
        ImportError: altair, vl-convert or pandas is not installed.
    """
    try:
        import altair as alt
        import pandas  # noqa: F401
        import vl_convert
    except ImportError as error:
        raise ImportError(
            f"training_picture draws with altair, vl-convert and pandas, and {error.name} is not "
            'installed; write: pip install "lightning-losses[report]"'
        ) from error

    metrics = read(metrics_csv, ("step",))
    bins = read(reliability_csv, BINS)
    panels = [
        loss_panel(metrics),
        entropy_panel(metrics),
        reliability_panel(bins),
        radius_panel(metrics),
    ]
    grid = alt.concat(
        *panels, columns=2, padding=24, config=STYLE, spacing={"row": 44, "column": 56}
    )
    grid = grid.resolve_scale(color="independent", strokeDash="independent")
    with alt.data_transformers.enable("default", max_rows=None):
        spec = grid.to_dict()
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(vl_convert.vegalite_to_png(spec, scale=2))
    return out


def loss_panel(metrics: Source) -> Any:
    """`train/loss`, `val/loss` and every raw term against step."""
    import altair as alt

    columns = [] if metrics.cells is None else list(metrics.cells.columns)
    names = ["train/loss", "val/loss", *sorted(c for c in columns if c.startswith("train/loss/"))]
    curves = read_curves(metrics, names)
    last = {name: curves.ends(name) for name in names}
    drawn = [name for name in names if last[name] is not None]
    heading = titled(
        "Loss",
        "healthy: train and val fall together; val rising alone is overfitting",
        *(f"{name} ends at {last[name]:.3g}" for name in drawn if name in names[:2]),
        lost(curves),
    )
    if not drawn:
        return words(heading, metrics, names[:2], "compute_loss logs them in a Trainer's fit")
    curves = thin(curves, "mean")
    colours = [PALETTE[names.index(name) % len(PALETTE)] for name in drawn]
    dashes = [[5, 3] if names.index(name) >= len(PALETTE) else [1, 0] for name in drawn]
    colour = alt.Scale(domain=drawn, range=colours)
    dash = alt.Scale(domain=drawn, range=dashes)
    short = [name.removeprefix("train/loss/") for name in drawn]
    legend = alt.Legend(
        title=None,
        orient="bottom",
        offset=8,
        columns=max(1, WIDTH // (40 + 6 * max(map(len, short)))),
        labelExpr="replace(datum.label, 'train/loss/', '')",
    )
    chart = alt.Chart(curves.rows).encode(
        x=step_axis(curves),
        y=loss_axis(curves.rows["value"].min(), curves.rows["value"].max()),
        color=alt.Color("series:N", scale=colour, legend=legend),
        strokeDash=alt.StrokeDash("series:N", scale=dash, legend=legend),
    )
    return lines(chart, curves, HEIGHT).properties(title=heading)


def loss_axis(low: float, high: float) -> Any:
    """Linear, but for positive values a log axis where raw terms differ too much to share one."""
    import altair as alt

    if low > 0 and high > 10 * low:
        return log_axis("loss (log scale)", low / 1.1, high * 1.1)
    return alt.Y("value:Q", title="loss", axis=alt.Axis(tickCount=6))


def entropy_panel(metrics: Source) -> Any:
    """`entropy/mean` in nats, and under it `entropy/ratio` where it was logged."""
    import altair as alt

    units = {"entropy/mean": "nats", "entropy/ratio": "ratio"}
    read_all = {name: read_curves(metrics, [name]) for name in units}
    found = {name: curves for name, curves in read_all.items() if not curves.rows.empty}
    heading = titled(
        "Entropy of the predictions",
        "healthy: falls with the loss in supervised training, stays up in policy training",
        *(f"{name} ends at {curves.ends(name):.3g}" for name, curves in found.items()),
        *(lost(curves) for curves in read_all.values()),
    )
    if not found:
        return words(heading, metrics, ["entropy/mean"], "the entropy callback logs it")
    plots = []
    for name, curves in found.items():
        curves, last = thin(curves, "mean"), name == list(found)[-1]
        height = HEIGHT if len(found) == 1 else STRIP if last else HEIGHT - STRIP - GAP
        y = alt.Y("value:Q", title=units[name], axis=alt.Axis(tickCount=height // 45 + 1))
        chart = alt.Chart(curves.rows).encode(x=step_axis(curves, last), y=y)
        plots.append(lines(chart.encode(color=alt.value(BLUE)), curves, height))
    # One scale for the step: the ratio starts later, and the strips stand under one another.
    return alt.vconcat(*plots, spacing=GAP, title=heading).resolve_scale(x="shared")


def radius_panel(metrics: Source) -> Any:
    """`step_radius/r` on a log axis, with the region above 1 tinted."""
    import altair as alt

    name = "step_radius/r"
    curves = read_curves(metrics, [name])
    zeros = int((curves.rows["value"] <= 0).sum())
    curves = curves._replace(rows=curves.rows[curves.rows["value"] > 0])
    values = curves.rows["value"]
    heading = titled(
        "Step radius",
        "healthy: below 1; above 1 the step leaves the region where the softmax is analytic",
        f"{(values > 1).sum():,} of {len(values):,} above 1" if len(values) else "",
        f"largest {values.max():.3g}" if len(values) else "",
        f"{zeros} of r = 0 not drawn" if zeros else "",
        lost(curves),
    )
    if values.empty:
        return words(heading, metrics, [name], "the step_radius callback logs it")
    curves = thin(curves, "max")  # a spike is what one looks for
    low, high = min(values.min(), 1) / 1.5, max(values.max(), 1) * 1.5
    y = log_axis("r (log scale)", low, high)
    tint = alt.Chart(alt.InlineData(values=[{"value": 1.0, "top": high}])).mark_rect(color=WASH)
    one = alt.Chart(alt.InlineData(values=[{"value": 1.0}]))
    label = one.mark_text(text="r = 1", align="right", dx=-5, dy=-8, color=RED, fontSize=13)
    chart = alt.Chart(curves.rows).encode(x=step_axis(curves), y=y, color=alt.value(BLUE))
    layers = alt.layer(
        tint.encode(y=y, y2="top:Q"),
        lines(chart, curves, HEIGHT),
        one.mark_rule(color=RED, strokeWidth=1.5).encode(y=y),
        label.encode(y=y, x=alt.value(WIDTH)),
    )
    return layers.properties(title=heading)
