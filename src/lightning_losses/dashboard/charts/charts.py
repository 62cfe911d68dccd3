# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From a panel and a run to its charts; from a panel and several runs to one overlay."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_losses.dashboard.charts.curves import Chart, curves
from lightning_losses.dashboard.charts.diagrams import heat_map, plane, reliability, stages
from lightning_losses.dashboard.panels.catalogue import Panel, matches
from lightning_losses.dashboard.runs.run import Run, Series


def charts(panel: Panel, run: Run) -> list[Chart]:
    """What a panel draws of a run: mostly one chart, none if nothing was logged."""
    rows = run.tables.get(panel.table, [])
    if panel.kind == "reliability":
        drawn = [reliability(rows, stage) for stage in stages(rows)]
    elif panel.kind == "heat_map":
        drawn = [heat_map(rows)]
    elif panel.kind == "plane":
        drawn = [plane(rows)]
    else:
        drawn = [of_names(panel, run)]
    return [chart for chart in drawn if chart.data is not None or chart.facts]


def of_names(panel: Panel, run: Run) -> Chart:
    """A panel's curves; a test after training is one value, which is words beside curves."""
    series = {name: run.series[name] for name in matches(panel, run.series)}
    tests = {name: one for name, one in series.items() if is_test(name) and len(one.values) == 1}
    said = []
    if len(tests) < len(series):
        series = {name: one for name, one in series.items() if name not in tests}
        said = [f"{'/'.join(name.split('/')[-2:])} {one.last:.3g}" for name, one in tests.items()]
    chart = curves(panel, series)
    return chart._replace(facts=[*said, *chart.facts])


def is_test(name: str) -> bool:
    """Whether a name belongs to the test stage."""
    return "test" in name.split("/")[:-1]


def overlays(panel: Panel, runs: Sequence[Run]) -> list[tuple[str, Chart]]:
    """A panel's first name that runs have as a curve (all of losses, terms and the user's own)."""
    if panel.table:
        return []
    names = matches(panel, {name for run in runs for name in run.series})
    drawn = []
    for name in names:
        own: dict[str, Series] = {run.name: run.series[name] for run in runs if name in run.series}
        if is_test(name) or max(len(one.values) for one in own.values()) < 2:
            continue
        plain = panel._replace(kind="levels" if panel.kind == "levels" else "lines")
        missing = [run.name for run in runs if name not in run.series]
        chart = curves(plain, own, one_a_run=True)
        if chart.data is not None:
            at = {run.name: position for position, run in enumerate(runs)}
            for line in chart.data["series"]:
                line["run"] = at[line["name"]]
        if missing:
            chart = chart._replace(facts=[*chart.facts, f"not logged by {', '.join(missing)}"])
        drawn.append((name, chart))
    return drawn if panel.name in ("loss", "terms") or panel.own else drawn[:1]
