# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: one table of how they ended, and their curves over one another."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from lightning_losses.dashboard.charts.charts import overlays
from lightning_losses.dashboard.charts.theme import Spec
from lightning_losses.dashboard.panels.catalogue import PANELS, SECTIONS
from lightning_losses.dashboard.report.page import card, chart
from lightning_losses.dashboard.report.verdict import verdict
from lightning_losses.dashboard.runs.run import Run, Series

# Column, names in order of preference, and whether the least (min), the most (max) or neither wins.
COLUMNS: tuple[tuple[str, tuple[str, ...], str], ...] = (
    ("test accuracy", ("test/accuracy", "calibration/test/accuracy"), "max"),
    ("val accuracy", ("val/accuracy", "calibration/val/accuracy"), "max"),
    ("test NLL", ("calibration/test/nll",), "min"),
    ("val NLL", ("calibration/val/nll",), "min"),
    ("test ECE", ("calibration/test/ece",), "min"),
    ("val ECE", ("calibration/val/ece",), "min"),
    ("test Brier", ("calibration/test/brier",), "min"),
    ("val/loss", ("val/loss",), ""),
    ("train/loss", ("train/loss",), ""),
    ("entropy", ("entropy/mean",), ""),
    ("largest r", ("step_radius/r", "step_radius_controller/r"), "peak"),
)


def comparison(runs: Sequence[Run]) -> tuple[str, list[tuple[str, Spec, list[str]]]]:
    """The body of the page, and its charts in order (name, spec, title and words)."""
    pictures: list[tuple[str, Spec, list[str]]] = []
    parts = [
        f"<h1>{len(runs)} runs compared</h1>",
        f'<div class="card scroll">{table(runs)}</div>',
        f'<div class="card verdict" style="margin-top:16px">{short_verdicts(runs)}</div>',
    ]
    for section, about in SECTIONS.items():
        cards = ""
        for panel in (one for one in PANELS if one.section == section and not one.detail):
            for name, one in overlays(panel, runs):
                drawing, facts = "", "; ".join(one.facts)
                if one.spec is not None:
                    drawing = chart(len(pictures))
                    words = [name, f"{panel.title}; healthy: {panel.healthy}", facts]
                    picture = name.replace("/", "_")
                    pictures.append((picture, one.spec, [word for word in words if word]))
                cards += card(f"{panel.title}: {name}", panel, drawing, facts)
        if cards:
            parts.append(f"<section><h2>{section}</h2><p class=soft>{about}</p>")
            parts.append(f'<div class="grid">{cards}</div></section>')
    return "\n".join(parts), pictures


def table(runs: Sequence[Run]) -> str:
    """Last values by run, the best of a column marked; columns that no run has are left out."""
    used = [
        column for column in COLUMNS if any(value(run, *column[1:]) is not None for run in runs)
    ]
    head = "".join(f"<th>{escape(title)}</th>" for title, _, _ in used)
    body = ""
    for run in runs:
        body += f"<tr><td>{escape(run.name)}</td>"
        for _, names, wins in used:
            own = value(run, names, wins)
            known = [
                one for one in (value(other, names, wins) for other in runs) if one is not None
            ]
            best = wins in ("min", "max") and own == {"min": min, "max": max}.get(wins, min)(known)
            mark = ' class="best"' if best and min(known) != max(known) else ""
            body += f"<td{mark}>{'not logged' if own is None else f'{own:.4g}'}</td>"
        body += "</tr>"
    return (
        f"<table><tr><th>run</th>{head}</tr>{body}</table>"
        '<p class="missing">Last values. The best of a column is bold; losses of different '
        "objectives are on different scales, so none of them is.</p>"
    )


def value(run: Run, names: Sequence[str], wins: str) -> float | None:
    """The last value of the first of some names that was logged, or the largest for a peak."""
    for name in names:
        found: Series | None = run.series.get(name)
        if found is not None and found.values:
            return max(found.values) if wins == "peak" else found.last
    return None


def short_verdicts(runs: Sequence[Run]) -> str:
    """What went wrong or deserves a look in each run."""
    html = "<h3>What to look at</h3><ul>"
    for run in runs:
        bad = [one.text for one in verdict(run) if one.tone == "bad"]
        tone = "bad" if bad else "good"
        text = " ".join(bad) or "nothing of what was measured looks wrong."
        html += f"<li class={tone}><b>{escape(run.name)}</b>: {escape(text)}</li>"
    return f"{html}</ul>"
