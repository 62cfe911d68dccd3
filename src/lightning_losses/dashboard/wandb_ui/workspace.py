# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The panels as a Weights & Biases workspace and report, with the package wandb-workspaces."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any

from lightning_losses.dashboard.panels.catalogue import PANELS, SECTIONS, Panel
from lightning_losses.dashboard.wandb_ui.names import (
    STAGES,
    STEP,
    diagram_names,
    histogram_name,
    monitor_of,
    table_name,
)

TITLE = "lightning-losses"  # of the saved view
REPORT_TITLE = "lightning-losses report"  # by which the next push finds it
OPEN = ("Losses", "Confidence", "Calibration", "Steps")  # as everything else may not be logged
DETAILS = "Details"
COLUMNS = 3
GRID, HEIGHT = 24, 7  # a report's grid is 24 units wide; a panel's height in units


def reports_package() -> Any:
    """wandb-workspaces' reports, when they are needed and without types: it exports by `*`."""
    return import_module("wandb_workspaces.reports.v2")


def workspaces_package() -> Any:
    """wandb-workspaces' workspaces, the same."""
    return import_module("wandb_workspaces.workspaces")


def sections(charts: Mapping[str, str]) -> list[Any]:
    """A workspace section a section of the panels, words first, and one for all details.

    Args:
        charts: ids of custom chart presets by the panel's table; nothing to have none.
    """
    found = [
        section(name, about, [panel for panel in of_section(name) if not panel.detail], charts)
        for name, about in SECTIONS.items()
    ]
    details = [panel for panel in PANELS if panel.detail]
    return [*found, section(DETAILS, "What only some questions need.", details, charts)]


def section(name: str, about: str, panels: Sequence[Panel], charts: Mapping[str, str]) -> Any:
    """One section of a workspace: how to read it, then its panels."""
    wr, ws = reports_package(), workspaces_package()
    shown: list[Any] = [wr.MarkdownPanel(markdown=words(about, panels))]
    shown += [one for panel in panels for one in drawn(panel, charts)]
    rows = -(-len(shown) // COLUMNS)  # all of them: nothing on a second page
    return ws.Section(
        name=name,
        panels=shown,
        is_open=name in OPEN,
        layout_settings=ws.SectionLayoutSettings(columns=COLUMNS, rows=rows),
        panel_settings=ws.SectionPanelSettings(x_axis=STEP),
    )


def blocks(entity: str, project: str, charts: Mapping[str, str]) -> list[Any]:
    """The report: a heading, the words and the panels of every section, details left out."""
    wr = reports_package()
    found: list[Any] = [
        wr.P(
            text="Written by `lightning-losses push`, and by the next one again: copy it to change "
            "it. A panel stays empty if what logs it was not among the callbacks."
        ),
        wr.TableOfContents(),
    ]
    for name, about in SECTIONS.items():
        panels = [panel for panel in of_section(name) if not panel.detail]
        shown = [one for panel in panels for one in drawn(panel, charts)]
        for place, one in enumerate(shown):
            row, column = divmod(place, COLUMNS)
            width = GRID // COLUMNS
            one.layout = wr.Layout(x=column * width, y=row * HEIGHT, w=width, h=HEIGHT)
        runs = wr.Runset(entity=entity, project=project)
        items = [f"{panel.title}: {reading(panel)}" for panel in panels]
        grid = wr.PanelGrid(runsets=[runs], panels=shown)
        found += [wr.H2(text=name), wr.P(text=about), grid, wr.UnorderedList(items=items)]
    return found


def of_section(name: str) -> list[Panel]:
    """A section's panels, in order."""
    return [panel for panel in PANELS if panel.section == name]


def drawn(panel: Panel, charts: Mapping[str, str]) -> list[Any]:
    """What stands for a panel: curves, or pictures of its table (and its histogram and preset)."""
    wr = reports_package()
    if not panel.table:
        return [line_plot(panel)]
    found: list[Any] = [
        wr.MediaBrowser(
            title=panel.title,
            media_keys=diagram_names(panel),
            mode="gallery",
            gallery_axis="step",
            num_columns=1,
        )
    ]
    if panel.kind == "reliability":
        # Of a single histogram over steps W&B draws a heat map; of two together it does not.
        found += [
            wr.LinePlot(
                title=f"Confidences, {stage}",
                x=STEP,
                y=[histogram_name(monitor_of(panel), stage)],
            )
            for stage in STAGES
        ]
    if panel.table in charts:
        fields = {name: name for name in CHART_FIELDS[panel.table]}
        key = table_name(panel, monitor_of(panel))
        chart = wr.CustomChart.from_table(key, chart_fields=fields, chart_strings={})
        chart.chart_name = charts[panel.table]
        found.append(chart)
    return found


CHART_FIELDS = {
    "reliability": ("stage", "lower", "upper", "count", "confidence", "accuracy"),
    "attention_entropy": ("layer", "head", "entropy_fraction"),
}


def line_plot(panel: Panel) -> Any:
    """A panel's curves; names with `*` become one regular expression, as W&B has no globs."""
    wr = reports_package()
    whole = not any("*" in key for key in panel.keys)
    return wr.LinePlot(
        title=titled(panel),
        x=STEP,
        y=list(panel.keys) if whole else [],
        metric_regex=None if whole else pattern(panel.keys),
        log_y=True if panel.scale == "log" else None,
        title_y=panel.unit or None,
        # The default averages what falls into a bucket; here the extremes are what matters.
        point_visualization_method="bucketing-gorilla",
    )


def titled(panel: Panel) -> str:
    """A panel's title with its limits: a line plot of W&B cannot draw a line of its own."""
    limits = [f"{line.value:g}" for line in panel.lines if line.above is not None]
    return f"{panel.title} (limit {' and '.join(limits)})" if limits else panel.title


def pattern(keys: Sequence[str]) -> str:
    """Logged names as one regular expression; `*` stands for any text."""
    parts = [".*".join(re.escape(part) for part in key.split("*")) for key in keys]
    return f"^({'|'.join(parts)})$"


def words(about: str, panels: Sequence[Panel]) -> str:
    """How to read a section, as Markdown."""
    lines = [f"- **{panel.title}**: {reading(panel)}" for panel in panels]
    return "\n".join([about, "", *lines])


def reading(panel: Panel) -> str:
    """What a panel shows, what healthy is, where its lines would be, and who logs it."""
    lines = [
        f"{line.value:g}" + (f" ({line.label})" if line.label != f"{line.value:g}" else "")
        for line in panel.lines
    ]
    at = f" Levels to watch: {', '.join(lines)}." if lines else ""
    return f"{panel.about} Healthy: {panel.healthy}.{at} Logged by {panel.source}."
