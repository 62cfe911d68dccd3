# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One HTML file that needs nothing else: style, charts and the library that draws them inside.

A Content-Security-Policy forbids the page every request, so that a browser proves what we say.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from functools import cache
from html import escape
from importlib.resources import files

from jinja2 import Environment, StrictUndefined, Template
from markupsafe import Markup

from lightning_losses.dashboard.charts.theme import CONFIG, THEMES, Spec
from lightning_losses.dashboard.panels.catalogue import Panel

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"


@cache
def library() -> str:
    """Vega, Vega-Lite and Vega-Embed in one text, as vl-convert carries them."""
    import vl_convert

    bundle = str(vl_convert.javascript_bundle())  # type: ignore[call-arg]
    return bundle.replace("</script", "<\\/script")


def page(title: str, body: str, specs: Sequence[Spec]) -> str:
    """The whole file; `body` places chart number n with `chart(n)`."""
    themes = {
        name: {key if key.startswith("@") else f"@{key}": value for key, value in theme.items()}
        for name, theme in THEMES.items()
    }
    for theme in themes.values():
        theme["curves"] = theme.pop("@curves")
    return template("page.html").render(
        title=title,
        policy=POLICY,
        style=Markup(text_of("page.css")),
        body=Markup(body),
        specs=embedded(specs),
        look=embedded({"themes": themes, "config": CONFIG}),
        script=Markup(f"{library()}\n{text_of('page.js')}") if specs else "",
    )


@cache
def text_of(name: str) -> str:
    """A file that is shipped beside this one."""
    return files(__package__).joinpath(name).read_text(encoding="utf-8")


@cache
def template(name: str) -> Template:
    """A file beside this one as a template that escapes what it is given."""
    options = {"autoescape": True, "trim_blocks": True, "undefined": StrictUndefined}
    return Environment(**options).from_string(text_of(name))


def embedded(value: object) -> Markup:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return Markup(text.replace("<", "\\u003c"))


def chart(number: int) -> str:
    """Where chart number n is drawn."""
    return f'<div class="chart" data-spec="{number}"></div>'


def card(title: str, panel: Panel, drawing: str, facts: str) -> str:
    """A chart with its heading, what it is, what healthy looks like, and what it leaves out."""
    caption = f"<figcaption>{escape(facts)}</figcaption>" if facts else ""
    return (
        f'<div class="card"><h3>{escape(title)}</h3>'
        f"<p class=soft>{escape(panel.about)}</p>"
        f'<p class="soft healthy"><b>Healthy:</b> {escape(panel.healthy)}.</p>'
        f"<figure>{drawing}{caption}</figure></div>"
    )
