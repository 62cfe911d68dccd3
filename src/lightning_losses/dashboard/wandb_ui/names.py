# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Under which names Weights & Biases gets what the panels draw: curves, tables, pictures."""

from __future__ import annotations

from typing import NamedTuple

from lightning_losses.dashboard.charts.diagrams import BINS, HEADS, PLANE
from lightning_losses.dashboard.panels.catalogue import PANELS, Panel

STEP = "trainer/global_step"  # Lightning's step axis
STAGES = ("val", "test")
COLUMNS = {"reliability": BINS, "heat_map": HEADS, "plane": PLANE}  # what a kind of table needs
LOGGED_BY = {"reliability": "calibration"}  # a monitor's name, where its table has another


class Metric(NamedTuple):
    """One `define_metric`; an empty summary leaves W&B's, which is the last value."""

    name: str
    summary: str = ""


def metrics() -> list[Metric]:
    """What is defined of every panel's names, each once.

    W&B takes `*` at the end only. In a calibration name `*` is a stage, so there it is replaced by
    every stage; elsewhere a name ends at its first `*`. Only whole names have a summary: Lightning
    defines `*` before, and of several names with `*` that fit W&B does not take the longest.
    """
    found: dict[str, Metric] = {}
    for panel in PANELS:
        for key in panel.keys:
            for name in definable(key):
                summary = kept(panel) if "*" not in name else ""
                found.setdefault(name, Metric(name, summary))
    return list(found.values())


def definable(key: str) -> list[str]:
    """A panel's key as names with `*` at their end at most."""
    if "*" not in key[:-1]:
        return [key]
    if key.startswith(("calibration/", "post_hoc/")):
        return [key.replace("*", stage, 1) for stage in STAGES]
    return [key[: key.index("*") + 1]]


def kept(panel: Panel) -> str:
    """The summary of a panel's names, as W&B writes it."""
    extreme = panel.summary or (panel.join if panel.join != "mean" else "")
    return f"{extreme},last" if extreme else ""


def panel_of(columns: set[str]) -> Panel | None:
    """The panel that draws a table with these columns."""
    for panel in PANELS:
        if panel.table and set(COLUMNS[panel.kind]) <= columns:
            return panel
    return None


def monitor_of(panel: Panel) -> str:
    """First part of the names of the monitor that keeps a panel's table."""
    return LOGGED_BY.get(panel.table, panel.table)


def table_name(panel: Panel, monitor: str) -> str:
    """Where a table is logged; the local report finds it by the last part."""
    suffix = "" if monitor == monitor_of(panel) else f"_{monitor.replace('/', '_')}"
    return f"tables/{panel.table}{suffix}"


def diagram_name(monitor: str, part: str = "") -> str:
    """Where the picture of a table is logged; a reliability diagram's part is its stage."""
    return "/".join(word for word in (monitor, part, "diagram") if word)


def histogram_name(monitor: str, stage: str) -> str:
    """Where the histogram of confidences is logged."""
    return f"{monitor}/{stage}/confidence_histogram"


def diagram_names(panel: Panel) -> list[str]:
    """The pictures that stand for a panel with a table, of a monitor with its default name."""
    parts = STAGES if panel.kind == "reliability" else ("",)
    return [diagram_name(monitor_of(panel), part) for part in parts]
