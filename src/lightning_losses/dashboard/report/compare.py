# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Several runs side by side: one table of how they ended, and their curves over one another."""

from __future__ import annotations

from collections.abc import Sequence

from lightning_losses.dashboard.charts.charts import overlays
from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.panels.catalogue import (
    OWN,
    PANELS,
    SECTIONS,
    Panel,
    own_panels,
    unclaimed,
)
from lightning_losses.dashboard.report.ending import loss_of
from lightning_losses.dashboard.report.final_losses import final_losses
from lightning_losses.dashboard.report.page import Card, Page, Section, Table, TableCell, Verdict
from lightning_losses.dashboard.report.sentences import Said
from lightning_losses.dashboard.report.verdict import verdict
from lightning_losses.dashboard.runs.run import Cell, Run

MOST_SETTINGS = 8  # columns of the config; what differs beyond them is named in words
MOST_OWN = 6

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
    (
        "largest r",
        ("step_radius/r", "step_radius_controller/applied_r", "step_radius_controller/r"),
        "peak",
    ),
)
Picture = tuple[str, Chart, list[str]]  # name of the PNG, chart, title and words


def comparison(runs: Sequence[Run]) -> tuple[Page, list[Picture]]:
    """The page, and its charts in order."""
    pictures: list[Picture] = []
    sections = []
    own = own_panels({name for run in runs for name in run.series})
    about = {"Losses": SECTIONS["Losses"], OWN: "As you logged them.", **SECTIONS}
    for name, words in about.items():
        panels = own if name == OWN else [one for one in PANELS if one.section == name]
        cards = [
            card
            for panel in panels
            if not panel.detail
            for card in panel_cards(panel, runs, pictures)
        ]
        if cards:
            sections.append(Section(name.split()[0].lower(), name, words, cards))
    verdicts = [Verdict("What to look at", short_verdicts(runs))]
    lines, cards = over_runs(runs, pictures)
    if lines:
        verdicts.insert(0, Verdict("Over the runs", lines))
    if cards:
        about_runs = "How the final loss follows from what was varied."
        sections.insert(0, Section("laws", "Over the runs", about_runs, cards))
    page = Page(
        heading=f"{len(runs)} runs compared",
        lead="Training report.",
        sections=sections,
        verdicts=verdicts,
        table=table(runs),
    )
    return page, pictures


def over_runs(runs: Sequence[Run], pictures: list[Picture]) -> tuple[list[Said], list[Card]]:
    """What many runs say that none alone does: laws of their sizes, a sweep of learning rates."""
    if len(runs) < 3:
        return [], []
    # They need torch, whose import costs more than the page of one run or of two.
    from lightning_losses.dashboard.report.learning_rates import rate_sweep
    from lightning_losses.dashboard.report.mixture_laws import mixture_forecast
    from lightning_losses.dashboard.report.run_laws import run_forecast

    finals, settings = final_losses(runs), differing(runs)
    forecast = run_forecast(runs, finals, settings)
    mixtures = mixture_forecast(runs, finals, settings)
    lines, charts = rate_sweep(runs, finals, settings)
    cards = []
    for name, title, chart in [*charts, *forecast.charts, *mixtures.charts]:
        cards.append(Card(f"chart-{name}", title, "", "", len(pictures), "; ".join(chart.facts)))
        pictures.append((name, chart, [title, *chart.facts]))
    return [*lines, *forecast.lines, *mixtures.lines], cards


def panel_cards(panel: Panel, runs: Sequence[Run], pictures: list[Picture]) -> list[Card]:
    """A card for each of the names that a panel overlays."""
    cards = []
    for name, chart in overlays(panel, runs):
        number = None
        facts = "; ".join(chart.facts)
        title = name if panel.own else f"{panel.title}: {name}"
        if chart.data is not None:
            number = len(pictures)
            words = [
                name,
                f"{panel.title}; healthy: {panel.healthy}" if panel.healthy else "",
                facts,
            ]
            pictures.append((name.replace("/", "_"), chart, [word for word in words if word]))
        anchor = f"chart-{name.replace('/', '-')}"
        cards.append(Card(anchor, title, panel.about, panel.healthy, number, facts))
    return cards


def table(runs: Sequence[Run]) -> Table:
    """What the runs were told and what they reached, the best of a column marked.

    Columns that no run has, and settings that are the same in all, are left out.
    """
    used = [
        column for column in COLUMNS if any(value(run, *column[1:]) is not None for run in runs)
    ]
    claimed = {name for _, names, _ in used for name in names}
    own = [
        name
        for name in unclaimed({name for run in runs for name in run.series})
        if name not in claimed and any(value(run, (name,), "") is not None for run in runs)
    ]
    used += [(name, (name,), "") for name in own[:MOST_OWN]]
    ends = any(run.ended is not None for run in runs)
    settings = differing(runs)
    shown = settings[:MOST_SETTINGS]
    rows = []
    for run in runs:
        row = [TableCell(run.name)]
        row += [TableCell(setting(run.config.get(key))) for key in shown]
        if ends:
            row.append(TableCell(run.ended.reason[:40] if run.ended is not None else "not known"))
        row.append(TableCell(last_step(run)))
        for _, names, wins in used:
            own_value = value(run, names, wins)
            others = [
                one for one in (value(other, names, wins) for other in runs) if one is not None
            ]
            best = (
                own_value == {"min": min, "max": max}[wins](others)
                if wins in ("min", "max")
                else False
            )
            text = "not logged" if own_value is None else f"{own_value:.4g}"
            row.append(TableCell(text, best and min(others) != max(others)))
        rows.append(row)
    note = (
        "Last values. The best of a column is bold; losses of different objectives are on "
        "different scales, so none of them is."
    )
    if len(settings) > len(shown):
        note += f" The config also differs in {', '.join(settings[len(shown) :][:20])}."
    head = ["run", *shown, *(["ended"] if ends else []), "last step"]
    return Table([*head, *(title for title, _, _ in used)], rows, note)


def differing(runs: Sequence[Run]) -> list[str]:
    """The settings in which the configs of the runs differ, those that few lack first."""
    configs = [run.config for run in runs]
    keys = list(dict.fromkeys(key for config in configs for key in config))
    found = [key for key in keys if len({config.get(key) for config in configs}) > 1]
    paths = ("dir", "path", "root", "run_dir", "cwd")
    found = [key for key in found if key.rsplit(".", 1)[-1] not in paths]
    return sorted(
        found, key=lambda key: (key.endswith("_target_"), sum(key not in one for one in configs))
    )


def setting(cell: Cell) -> str:
    """A setting in few letters."""
    if cell is None:
        return ""
    return f"{cell:g}" if isinstance(cell, float) else str(cell)[:60]


def last_step(run: Run) -> str:
    """How far a run got."""
    loss = loss_of(run.series)
    return f"{loss[1].last_step:,.0f}" if loss else "none"


def value(run: Run, names: Sequence[str], wins: str) -> float | None:
    """The last value of the first of some names that was logged, or the largest for a peak."""
    for name in names:
        one = run.series.get(name)
        if one is not None and len(one.values):
            return float(one.values.max()) if wins == "peak" else one.last
    return None


def short_verdicts(runs: Sequence[Run]) -> list[Said]:
    """What went wrong or deserves a look in each run."""
    lines = []
    for run in runs:
        all_said = verdict(run)
        bad = [one.text for one in all_said if one.tone == "bad"]
        unknown = [one.text for one in all_said if one.tone == "unknown"]
        if bad:
            lines.append(Said("bad", f"{run.name}: {' '.join(bad)}"))
        elif unknown:
            lines.append(
                Said(
                    "unknown", f"{run.name}: nothing of what was measured looks wrong. {unknown[0]}"
                )
            )
        else:
            lines.append(Said("good", f"{run.name}: nothing of what was measured looks wrong."))
    return lines
