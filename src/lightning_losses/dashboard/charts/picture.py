# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One PNG that says how a training run went: six of the report's panels."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from textwrap import wrap

from lightning_losses.dashboard.charts.charts import charts
from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.charts.theme import HEIGHT, WIDTH, Spec, coloured, headed
from lightning_losses.dashboard.charts.vega import vega
from lightning_losses.dashboard.panels.catalogue import PANELS, Panel
from lightning_losses.dashboard.runs.csv_run import read_table
from lightning_losses.dashboard.runs.find import csv_runs
from lightning_losses.dashboard.runs.run import Run

__all__ = ["training_picture"]

SHOWN = ("loss", "terms", "entropy", "reliability", "ece", "radius")
LINE = 74  # characters under a title


def training_picture(metrics_csv: Path, out: Path, reliability_csv: Path | None = None) -> Path:
    """Draw a run's `metrics.csv` as six panels in one PNG and return where it is.

    What is not there (a file, a column, a number) becomes a sentence in its panel, never an
    exception. NaN and infinite values are not drawn; the panel says how many there were.

    Args:
        metrics_csv: as Lightning's CSVLogger writes it: a column `step`, then one a metric.
        out: the PNG to write; missing folders are made.
        reliability_csv: one row a bin with the columns stage, epoch, lower, upper, count,
            confidence, accuracy (fractions); `reliability.csv` beside the metrics if not given.
            The last epoch is drawn; of several stages, `val`.

    Raises:
        ImportError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError(
            "training_picture draws with vl-convert, which is not installed; write: "
            'pip install "lightning-losses[report]"'
        ) from error

    metrics_csv = Path(metrics_csv)
    run = csv_runs([metrics_csv], metrics_csv.parent)[-1]
    if reliability_csv is not None:
        rows, problems = read_table(Path(reliability_csv))
        run = run._replace(
            tables={**run.tables, "reliability": rows}, notes=[*run.notes, *problems]
        )
    out = Path(out)
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_bytes(vl_convert.vegalite_to_png(coloured(grid(run)), scale=2))
    return out


def grid(run: Run) -> Spec:
    """The panels in rows of three."""
    chosen = [panel for name in SHOWN for panel in PANELS if panel.name == name]
    drawn = [(panel, chart_of(panel, run)) for panel in chosen]
    deepest = max(len(under(panel, chart)) for panel, chart in drawn)
    plots = []
    for panel, chart in drawn:
        lines = under(panel, chart)
        lines += [" "] * (deepest - len(lines))  # or the plots of a row begin at unequal heights
        spec = vega(chart) or words(panel, run)
        title = f"{panel.title}, {chart.part}" if chart.part else panel.title
        plots.append(headed(spec, title, lines))
    apart = {"scale": {"color": "independent", "strokeDash": "independent"}}
    space = {"row": 36, "column": 44}
    return {"concat": plots, "columns": 3, "spacing": space, "padding": 24, "resolve": apart}


def chart_of(panel: Panel, run: Run) -> Chart:
    """A panel's chart; of several stages that of `val`, else the last."""
    several = charts(panel, run) or [Chart(None, [])]
    return next((one for one in several if one.part == "val"), several[-1])


def under(panel: Panel, chart: Chart) -> list[str]:
    """What healthy looks like and what the chart leaves out, in lines."""
    # The test's values are in the report; here they would push the plots apart.
    facts = wrap("; ".join(fact for fact in chart.facts if not fact.startswith("test/")), LINE)
    return [*wrap(f"healthy: {panel.healthy}", LINE), *facts]


def words(panel: Panel, run: Run) -> Spec:
    """An empty panel that says what is missing, why, and where it comes from."""
    what = panel.table or " or ".join(panel.keys[:2])
    reasons = [f"nothing to draw in {what}", *run.notes, f"({panel.source} logs it)"]
    return note([line for reason in reasons for line in wrap(reason, 58)])


def note(lines: Sequence[str]) -> Spec:
    """Text in the place of a plot."""
    mark = {"type": "text", "text": list(lines), "fontSize": 14, "lineHeight": 21, "color": "@soft"}
    place = {"x": {"value": WIDTH / 2}, "y": {"value": (HEIGHT - 21 * len(lines)) / 2}}
    size = {"width": WIDTH, "height": HEIGHT, "view": {"fill": "@grid", "cornerRadius": 4}}
    return {**size, "data": {"values": [{}]}, "mark": mark, "encoding": place}
