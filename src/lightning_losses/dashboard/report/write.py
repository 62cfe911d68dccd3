# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`write_report`: a run, or several, as one HTML file and, if asked, a PNG a chart."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, TypeVar

from lightning_losses.dashboard.charts.charts import charts
from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.charts.theme import coloured, headed
from lightning_losses.dashboard.charts.vega import vega
from lightning_losses.dashboard.panels.catalogue import (
    OWN,
    PANELS,
    SECTIONS,
    Panel,
    own_panels,
    unclaimed,
)
from lightning_losses.dashboard.report.compare import Picture, comparison
from lightning_losses.dashboard.report.page import (
    Card,
    Page,
    Section,
    Table,
    TableCell,
    Verdict,
    render,
)
from lightning_losses.dashboard.report.verdict import not_measured, verdict
from lightning_losses.dashboard.runs.find import find_runs
from lightning_losses.dashboard.runs.run import Run

MOST_OWN = 24  # charts of the user's own metrics; the others are folded away
T = TypeVar("T")


def write_report(
    places: Sequence[str | Path],
    out: Path | None = None,
    pictures: bool = False,
    progress: bool = False,
) -> Path:
    """Write `report.html` and return where it is.

    Whatever a run did not log is said in words, never an exception.

    Args:
        places: a run's folder (CSVLogger's, or one that has `csv/`), an offline Weights & Biases
            run (folder or file), `entity/project/run_id` of a live one, `lightning_logs` or a
            Hydra multirun's folder. Several runs are compared.
        out: folder to write to; `report` in the first place's folder if not given, or in the
            working directory if that is no folder.
        pictures: write a PNG of each chart too, a fifth of a second each; needs vl-convert.
        progress: show a bar on standard error, where that is a terminal.

    Raises:
        ValueError: no place given, no run at one of them, or `out` cannot be written.
        ImportError: polars, or for pictures vl-convert, is not installed.
    """
    if not places:
        raise ValueError("report needs a run; pass a run's folder.")
    png = png_writer() if pictures else None
    runs = find_runs([str(place) for place in places], lambda all_: bar(all_, "reading", progress))
    first = Path(places[0])
    if out is None:
        out = (first if first.is_dir() else first.parent if first.is_file() else Path()) / "report"
    page, drawn = one_run(runs[0]) if len(runs) == 1 else comparison(runs)
    plots = [chart.data for _, chart, _ in drawn if chart.data is not None]
    html = out / "report.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
        replace(html, render(page, plots, runs).encode("utf-8", errors="replace"))
        if png is not None:
            for name, chart, words in bar(drawn, "pictures", progress):
                replace(out / f"{file_name(name)}.png", png(chart, words))
    except OSError as error:
        raise ValueError(
            f"The report cannot be written to {out} ({error.strerror or type(error).__name__}); "
            "write --out FOLDER with a folder that you may write to."
        ) from error
    return html


def replace(path: Path, content: bytes) -> None:
    """Write a file as a whole, in the place of whatever is there: a link or a pipe as well."""
    part = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        part.write_bytes(content)
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def file_name(name: str) -> str:
    """A logged name as that of a file."""
    return re.sub(r"[^\w.=-]+", "_", name)[:100]


def png_writer() -> Callable[[Chart, list[str]], bytes]:
    """What turns a chart and its words into a PNG.

    Raises:
        ImportError: vl-convert is not installed.
    """
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError(
            "Pictures are drawn with vl-convert, which is not installed; write: "
            'pip install "lightning-losses[report]"'
        ) from error

    def png(chart: Chart, words: list[str]) -> bytes:
        spec = headed(vega(chart) or {}, words[0], words[1:]) | {"padding": 16}
        return bytes(vl_convert.vegalite_to_png(coloured(spec), scale=1.5))

    return png


def bar(items: Iterable[T], what: str, show: bool) -> Iterable[T]:
    """The items one by one, with a progress bar on a terminal if asked."""
    if not show:
        return items
    from tqdm import tqdm

    shown: Any = tqdm(items, desc=what, leave=False, disable=None)  # None: only on a terminal
    return shown  # type: ignore[no-any-return]


def one_run(run: Run) -> tuple[Page, list[Picture]]:
    """A run's page, and its charts in order."""
    pictures: list[Picture] = []
    sections = []
    for name, about in SECTIONS.items():
        sections.append(section(name, about, run, pictures))
        if name == "Losses":
            sections += own_section(run, pictures)
    sections += config_section(run)
    steps = run.last_step
    size = [
        f"{run.epochs} epoch{'s' * (run.epochs > 1)}" if run.epochs else "",
        f"last step {steps:,.0f}" if steps >= 0 else "",
        f"{len(run.series)} logged names",
    ]
    missing = "; ".join(not_measured(run))
    if missing:
        missing = f"Not measured, so nothing is said about it: {missing}."
    page = Page(
        heading=run.name,
        lead=f"Training report: {', '.join(part for part in size if part)}.",
        sections=sections,
        verdicts=[Verdict("In short", verdict(run), missing)],
        overrides=" ".join(run.overrides),
        about=list(run.about.items()),
    )
    return page, pictures


def anchor(name: str) -> str:
    """Where a section's link leads."""
    return name.split()[0].lower()


def section(name: str, about: str, run: Run, pictures: list[Picture]) -> Section:
    """A section's cards, its details folded away, and one line for what was not logged."""
    main: list[Card] = []
    details: list[Card] = []
    missing: list[str] = []
    for panel in (panel for panel in PANELS if panel.section == name):
        own = cards(panel, run, pictures)
        if own:
            (details if panel.detail else main).extend(own)
        elif not panel.detail:
            missing.append(f"{panel.title} ({panel.source})")
    return Section(anchor(name), name, about, main, details, "; ".join(missing))


def cards(panel: Panel, run: Run, pictures: list[Picture]) -> list[Card]:
    """A panel's charts with their words; nothing if nothing of it was logged."""
    made = []
    for number, chart in enumerate(charts(panel, run), 1):
        title = f"{panel.title}, {chart.part}" if chart.part else panel.title
        place = None
        facts = "; ".join(chart.facts)
        name = panel.name if number == 1 else f"{panel.name}_{number}"
        if chart.data is not None:
            place = len(pictures)
            words = [title, f"healthy: {panel.healthy}" if panel.healthy else "", facts]
            pictures.append((name, chart, [word for word in words if word]))
        made.append(Card(f"chart-{name}", title, panel.about, panel.healthy, place, facts))
    return made


def own_section(run: Run, pictures: list[Picture]) -> list[Section]:
    """What the user's own code logged: a chart of each metric, a table of those logged once."""
    names = [name for name in unclaimed(run.series) if len(run.series[name].values)]
    if not names:
        return []
    curves = [panel for panel in own_panels(names) if any(is_curve(run, n) for n in panel.keys)]
    drawn = [card for panel in curves for card in cards(panel, run, pictures)]
    shown = {name for panel in curves for name in panel.keys}
    once = [name for name in names if name not in shown]
    table = None
    if once:
        rows = [[TableCell(name), TableCell(f"{run.series[name].last:.6g}")] for name in once]
        table = Table(["logged once", "value"], rows)
    about = "Everything else that was logged, as it was logged."
    return [Section("own", OWN, about, drawn[:MOST_OWN], drawn[MOST_OWN:], table=table)]


def is_curve(run: Run, name: str) -> bool:
    """Whether a name has more than one value."""
    return len(run.series[name].values) > 1


def config_section(run: Run) -> list[Section]:
    """What the run was started with."""
    if not run.config:
        return []
    rows = [
        [TableCell(key), TableCell(f"{cell:g}" if isinstance(cell, float) else str(cell))]
        for key, cell in sorted(run.config.items())
    ]
    table = Table(["setting", "value"], rows[:400])
    if len(rows) > 400:
        table = table._replace(note=f"{len(rows) - 400} more are not shown.")
    return [Section("config", "Config", "What the run was started with.", [], table=table)]
