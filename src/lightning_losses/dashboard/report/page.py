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

from lightning_losses.dashboard.charts.theme import CONFIG, THEMES, Spec
from lightning_losses.dashboard.panels.catalogue import Panel

POLICY = "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; img-src data:"

STYLE = """
:root { color-scheme: light dark; --page: #f6f8fa; --paper: #fff; --ink: #1f2328; --soft: #59636e;
  --line: #d8dee4; --good: #1a7f37; --bad: #c24d00; --link: #0072b2; }
@media (prefers-color-scheme: dark) { :root { --page: #0d1117; --paper: #161b22; --ink: #e6edf3;
  --soft: #9da7b3; --line: #2a313a; --good: #3fb950; --bad: #ff9d5c; --link: #5db2ec; } }
* { box-sizing: border-box; }
body { margin: 0 auto; max-width: 1500px; padding: 24px 28px 60px; background: var(--page);
  color: var(--ink); font: 15px/1.5 system-ui, "Liberation Sans", Arial, Helvetica, sans-serif; }
h1 { font-size: 26px; line-height: 1.25; margin: 0 0 6px; overflow-wrap: anywhere; }
h2 { font-size: 20px; margin: 40px 0 0; } h3 { font-size: 16px; margin: 0 0 4px; }
p { margin: 0 0 6px; } .soft, figcaption { color: var(--soft); font-size: 13.5px; }
nav { margin: 12px 0 18px; } nav a { margin-right: 16px; white-space: nowrap; }
a { color: var(--link); }
.card { background: var(--paper); border: 1px solid var(--line); border-radius: 8px;
  padding: 16px 18px; min-width: 0; }
.grid { display: grid; gap: 16px; margin-top: 14px;
  grid-template-columns: repeat(auto-fill, minmax(min(100%, 420px), 1fr)); }
.grid .card { display: flex; flex-direction: column; } .grid figure { margin-top: auto; }
.verdict ul { list-style: none; margin: 8px 0 0; padding: 0; }
.verdict li { padding: 2px 0 2px 26px; position: relative; overflow-wrap: anywhere; }
.verdict li::before { position: absolute; left: 4px; content: "\\2022"; color: var(--soft); }
.verdict li.good::before { content: "\\2713"; color: var(--good); font-weight: bold; }
.verdict li.bad::before { content: "!"; left: 7px; color: var(--bad); font-weight: bold; }
.healthy b { color: var(--good); font-weight: 600; }
figure { margin: 10px 0 0; padding-top: 8px; }
.chart { width: 100%; min-height: 40px; overflow-x: auto; }
.chart .vega-bind { display: block; font-size: 13px; color: var(--soft); }
.chart .vega-bind label { display: flex; gap: 8px; align-items: center; flex-wrap: wrap; }
.chart input[type=range] + * { display: none; } /* a number; the caption says more */
.chart svg { max-width: none; display: block; }
details { margin-top: 14px; } summary { cursor: pointer; color: var(--link); }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: 13.5px; width: 100%; }
th, td { padding: 4px 12px 4px 0; text-align: right; border-bottom: 1px solid var(--line);
  font-variant-numeric: tabular-nums; white-space: nowrap; }
th:first-child, td:first-child { text-align: left; min-width: 130px; overflow-wrap: anywhere;
  white-space: normal; }
th { color: var(--soft); font-weight: 600; vertical-align: bottom; }
td.best { font-weight: 700; color: var(--good); }
.missing { color: var(--soft); font-size: 13.5px; margin-top: 14px; }
code { font: 13px ui-monospace, "Liberation Mono", monospace; overflow-wrap: anywhere; }
@media (max-width: 600px) { body { padding: 16px 12px 40px; } .card { padding: 12px; } }
"""

SCRIPT = """
const specs = JSON.parse(document.getElementById("specs").textContent);
const look = JSON.parse(document.getElementById("look").textContent);
const dark = window.matchMedia("(prefers-color-scheme: dark)");
const drawn = new Map();
function coloured(spec) {
  const theme = look.themes[dark.matches ? "dark" : "light"];
  return JSON.parse(JSON.stringify({...spec, config: look.config}), (_, value) =>
    typeof value !== "string" ? value : value === "@curves" ? theme.curves : theme[value] ?? value);
}
function fitted(spec, room) {
  const width = Math.max(180, room - 58);
  if (spec.vconcat) return {...spec, vconcat: spec.vconcat.map(part => ({...part, width}))};
  return {...spec, width: Math.max(180, room), autosize: {type: "fit-x", contains: "padding"}};
}
async function draw(node) {
  const room = node.clientWidth;
  const key = room + " " + dark.matches;
  if (!room || drawn.get(node) === key) return;
  drawn.set(node, key);
  const spec = coloured(fitted(specs[node.dataset.spec], room));
  // ast: expressions are interpreted, so that the page needs no permission to evaluate text.
  await vegaEmbed(node, spec, {renderer: "svg", actions: false, ast: true});
}
function drawAll() { return Promise.all([...document.querySelectorAll(".chart")].map(draw)); }
let waiting;
window.addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(drawAll, 150);
});
window.addEventListener("beforeprint", drawAll);
dark.addEventListener("change", drawAll);
document.querySelectorAll("details").forEach(one => one.addEventListener("toggle", drawAll));
drawAll().then(() => { document.body.dataset.drawn = "yes"; });
"""


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
    script = f'<script type="module">{library()}\n{SCRIPT}</script>' if specs else ""
    return f"""<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="{POLICY}">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<link rel="icon" href="data:,">
<style>{STYLE}</style>
</head>
<body>
{body}
<script type="application/json" id="specs">{embedded(specs)}</script>
<script type="application/json" id="look">{embedded({"themes": themes, "config": CONFIG})}</script>
{script}
</body>
</html>
"""


def embedded(value: object) -> str:
    """JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return text.replace("<", "\\u003c")


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
