# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`write_report`: a run, or several, as one HTML file and a PNG a chart."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path

from lightning_losses.dashboard.charts.charts import charts
from lightning_losses.dashboard.charts.theme import Spec, coloured, headed
from lightning_losses.dashboard.panels.catalogue import PANELS, SECTIONS, Panel, unclaimed
from lightning_losses.dashboard.report.compare import comparison
from lightning_losses.dashboard.report.page import card, chart, page
from lightning_losses.dashboard.report.verdict import Said, not_measured, verdict
from lightning_losses.dashboard.runs.find import find_runs
from lightning_losses.dashboard.runs.run import Run

Picture = tuple[str, Spec, list[str]]  # name of the PNG, spec, title and what healthy looks like


def write_report(
    places: Sequence[str | Path], out: Path | None = None, pictures: bool = True
) -> Path:
    """Write `report.html` and the PNGs of its charts, and return where the HTML is.

    Whatever a run did not log is said in words, never an exception.

    Args:
        places: a run's folder (CSVLogger's, or one that has `csv/`), an offline Weights & Biases
            run (folder or file), `entity/project/run_id` of a live one, or a Hydra multirun's
            folder. Several runs are compared.
        out: folder to write to; `report` in the first place's folder if not given, or in the
            working directory if that is no folder.
        pictures: write the PNGs too, a fifth of a second each.

    Raises:
        ValueError: no place given, or no run at one of them.
        ImportError: vl-convert is not installed.
    """
    if not places:
        raise ValueError("report needs a run; pass a run's folder.")
    try:
        import vl_convert
    except ImportError as error:
        raise ImportError(
            "The report is drawn with vl-convert, which is not installed; write: "
            'pip install "lightning-losses[report]"'
        ) from error
    runs = find_runs([str(place) for place in places])
    first = Path(places[0])
    if out is None:
        out = (first if first.is_dir() else first.parent if first.is_file() else Path()) / "report"
    out.mkdir(parents=True, exist_ok=True)
    title = runs[0].name if len(runs) == 1 else f"{len(runs)} runs"
    body, drawn = one_run(runs[0]) if len(runs) == 1 else comparison(runs)
    html = out / "report.html"
    html.write_text(page(title, body, [spec for _, spec, _ in drawn]), encoding="utf-8")
    for name, spec, words in drawn if pictures else []:
        done = coloured(headed(spec, words[0], words[1:]) | {"padding": 16})
        (out / f"{name}.png").write_bytes(vl_convert.vegalite_to_png(done, scale=1.5))
    return html


def one_run(run: Run) -> tuple[str, list[Picture]]:
    """The body of a run's page, and its charts in order."""
    pictures: list[Picture] = []
    sections = [section(name, about, run, pictures) for name, about in SECTIONS.items()]
    steps = max((one.steps[-1] for one in run.series.values() if one.steps), default=None)
    size = [
        f"{run.epochs} epoch{'s' * (run.epochs > 1)}" if run.epochs else "",
        f"last step {steps:,.0f}" if steps is not None else "",
        f"{len(run.series)} logged names",
    ]
    head = f"<h1>{escape(run.name)}</h1>\n<p class=soft>Training report: "
    head += f"{', '.join(part for part in size if part)}.</p>"
    if run.overrides:
        head += f"<p><code>{escape(' '.join(run.overrides))}</code></p>"
    links = " ".join(f'<a href="#{anchor(name)}">{name}</a>' for name in SECTIONS)
    parts = [head, f"<nav>{links}</nav>", said(run), *sections, others(run)]
    return "\n".join(parts), pictures


def anchor(name: str) -> str:
    """Where a section's link leads."""
    return name.split()[0].lower()


def said(run: Run) -> str:
    """The verdict, and what cannot be said because it was not measured."""
    lines = [item(one) for one in verdict(run)]
    missing = "; ".join(not_measured(run))
    if missing:
        missing = f"Not measured, so nothing is said about it: {missing}."
    return (
        f'<div class="card verdict"><h3>In short</h3><ul>{"".join(lines)}</ul>'
        f'<p class="missing">{escape(missing)}</p></div>'
    )


def item(one: Said) -> str:
    """A sentence of the verdict."""
    return f"<li class={one.tone}>{escape(one.text)}</li>"


def section(name: str, about: str, run: Run, pictures: list[Picture]) -> str:
    """A section's cards, its details folded away, and one line for what was not logged."""
    main: list[str] = []
    folded: list[str] = []
    missing: list[str] = []
    for panel in (panel for panel in PANELS if panel.section == name):
        found = cards(panel, run, pictures)
        if found:
            (folded if panel.detail else main).extend(found)
        elif not panel.detail:
            missing.append(f"{panel.title} ({panel.source})")
    html = f'<section id="{anchor(name)}"><h2>{name}</h2><p class=soft>{about}</p>'
    if main:
        html += f'<div class="grid">{"".join(main)}</div>'
    if folded:
        html += f"<details><summary>{len(folded)} more</summary>"
        html += f'<div class="grid">{"".join(folded)}</div></details>'
    if missing:
        html += f'<p class="missing">Not logged (who logs it): {escape("; ".join(missing))}.</p>'
    return html + "</section>"


def cards(panel: Panel, run: Run, pictures: list[Picture]) -> list[str]:
    """A panel's charts with their words; nothing if nothing of it was logged."""
    found = []
    for number, one in enumerate(charts(panel, run), 1):
        title = f"{panel.title}, {one.part}" if one.part else panel.title
        drawing = ""
        if one.spec is not None:
            drawing = chart(len(pictures))
            name = panel.name if number == 1 else f"{panel.name}_{number}"
            words = [title, f"healthy: {panel.healthy}", "; ".join(one.facts)]
            pictures.append((name, one.spec, [word for word in words if word]))
        found.append(card(title, panel, drawing, "; ".join(one.facts)))
    return found


def others(run: Run) -> str:
    """Numbers that no panel draws, as a table: nothing that was logged is hidden."""
    names = [name for name in unclaimed(run.series) if run.series[name].values]
    if not names:
        return ""
    rows = ""
    for name in names:
        values = run.series[name].values
        cells = (f"{values[-1]:.4g}", f"{min(values):.4g}", f"{max(values):.4g}", f"{len(values)}")
        rows += f"<tr><td>{escape(name)}</td>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    head = "<tr><th>name</th><th>last</th><th>lowest</th><th>highest</th><th>times</th></tr>"
    return (
        '<section><h2>Everything else that was logged</h2><div class="card scroll">'
        f"<table>{head}{rows}</table></div></section>"
    )
