# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs nothing else: style, data, and the script that draws the charts.

A Content-Security-Policy forbids the page every request, so that a browser proves what we say.
Style, script and template lie in `assets`; jinja2 escapes what it is given.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache
from importlib.resources import files
from typing import Any, NamedTuple

from lightning_losses.dashboard.charts.curves import Data, tidied
from lightning_losses.dashboard.runs.run import Run

POLICY = (
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:; "
    "form-action 'none'; base-uri 'none'"
)


class Card(NamedTuple):
    """A chart with its heading, what it is, what healthy looks like, and what it leaves out."""

    id: str
    title: str
    about: str
    healthy: str
    chart: int | None  # its number among the page's charts
    facts: str


class TableCell(NamedTuple):
    """What stands in a table, and whether it is the best of its column."""

    text: str
    best: bool = False


class Table(NamedTuple):
    """A table with its heading and what it leaves out."""

    head: list[str]
    rows: list[list[TableCell]]
    note: str = ""


class Section(NamedTuple):
    """A heading with what belongs under it."""

    id: str
    name: str
    about: str
    cards: list[Card]
    details: list[Card] = []  # folded away
    missing: str = ""
    table: Table | None = None


class Verdict(NamedTuple):
    """Sentences about a run, and what cannot be said because it was not measured."""

    title: str
    lines: Sequence[Any]  # Said
    missing: str = ""


class Page(NamedTuple):
    """Everything that a report shows."""

    heading: str
    lead: str
    sections: list[Section]
    verdicts: list[Verdict]
    overrides: str = ""
    about: Sequence[tuple[str, str]] = ()
    table: Table | None = None


def render(page: Page, charts: Sequence[Data], runs: Sequence[Run]) -> str:
    """The whole file.

    Args:
        charts: what the cards number.
        runs: whose epochs and times the charts' axes are; in the order of `run` in their series.
    """
    data = {
        "charts": charts,
        "clocks": [
            {
                "steps": tidied(run.clock.steps),
                "epochs": [round(epoch, 4) for epoch in run.clock.epochs.tolist()],
                "seconds": [round(second, 2) for second in run.clock.seconds.tolist()],
            }
            for run in runs
        ],
        "resumed": runs[0].resumed if len(runs) == 1 else [],
    }
    html: str = template().render(
        page._asdict(),
        title=page.heading,
        policy=POLICY,
        style=asset("page.css"),
        script=asset("charts.js") + asset("page.js"),
        data=embedded(data),
    )
    return html


def asset(name: str) -> str:
    """A file that is shipped beside this one."""
    return files(__package__).joinpath("assets", name).read_text(encoding="utf-8")


@cache
def template() -> Any:
    """The page with its blanks; needs jinja2, which torch brings.

    Raises:
        ImportError: jinja2 is not installed.
    """
    from jinja2 import Environment, StrictUndefined

    environment = Environment(
        autoescape=True, trim_blocks=True, lstrip_blocks=True, undefined=StrictUndefined
    )
    environment.filters["breakable"] = breakable
    return environment.from_string(asset("page.html"))


def breakable(text: object) -> Any:
    """Text in which a line may end after `/`, `_`, `.`, `=` and `,` before a letter."""
    from markupsafe import Markup, escape

    return Markup(re.sub(r"([/_.=,])(?=[A-Za-z\[])", r"\1<wbr>", str(escape(text))))


def embedded(value: object) -> Any:
    """JSON that cannot end the element it stands in."""
    from markupsafe import Markup

    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c"))
