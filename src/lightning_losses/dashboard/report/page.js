// SPDX-FileCopyrightText: 2026 The lightning-losses authors
// SPDX-License-Identifier: Apache-2.0
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
