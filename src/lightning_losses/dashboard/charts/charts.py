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
        found = [reliability(rows, stage) for stage in stages(rows)]
    elif panel.kind == "heat_map":
        found = [heat_map(rows)]
    elif panel.kind == "plane":
        found = [plane(rows)]
    else:
        found = [of_names(panel, run)]
    return [chart for chart in found if chart.spec is not None or chart.facts]


def of_names(panel: Panel, run: Run) -> Chart:
    """A panel's curves; a test after training is one value, which is words beside curves."""
    series = {name: run.series[name] for name in matches(panel, run.series)}
    tests = {name: one for name, one in series.items() if is_test(name) and len(one.values) == 1}
    if len(tests) < len(series):
        series = {name: one for name, one in series.items() if name not in tests}
        said = [f"{'/'.join(name.split('/')[-2:])} {one.last:.3g}" for name, one in tests.items()]
    else:
        said = []
    last = max((one.steps[-1] for one in run.series.values() if one.steps), default=None)
    chart = curves(panel, series, last)
    return chart._replace(facts=[*said, *chart.facts])


def is_test(name: str) -> bool:
    """Whether a name belongs to the test stage."""
    return "test" in name.split("/")[:-1]


def overlays(panel: Panel, runs: Sequence[Run]) -> list[tuple[str, Chart]]:
    """A panel's first name that runs have as a curve (of the losses all), and one curve a run."""
    if panel.table:
        return []
    names = matches(panel, {name for run in runs for name in run.series})
    found = []
    for name in names:
        own: dict[str, Series] = {run.name: run.series[name] for run in runs if name in run.series}
        if is_test(name) or max(len(one.values) for one in own.values()) < 2:
            continue
        plain = panel._replace(kind="levels" if panel.kind == "levels" else "lines")
        missing = [run.name for run in runs if name not in run.series]
        chart = curves(plain, own)
        if missing:
            chart = chart._replace(facts=[*chart.facts, f"not logged by {', '.join(missing)}"])
        found.append((name, chart))
    return found if panel.name == "loss" else found[:1]
