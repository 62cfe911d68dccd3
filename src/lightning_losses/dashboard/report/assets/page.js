// SPDX-FileCopyrightText: 2026 The lightning-losses authors
// SPDX-License-Identifier: Apache-2.0
// The page: draws every chart that can be seen, and keeps their axis, cursor and smoothing one.

const page = JSON.parse(document.getElementById("data").textContent);
const controls = document.getElementById("controls");
const draw = { curves: drawCurves, reliability: drawReliability, heat_map: drawHeatMap,
  plane: drawPlane, scatter: drawScatter };
const drawn = new Map(); // element -> what it was drawn for, and the plot if it has a cursor

const curveCharts = page.charts.filter((chart) => chart.kind === "curves");
const axes = ["step"];
if (page.clocks.length && page.clocks.every((clock) => clock.epochs.length)) axes.push("epoch");
if (page.clocks.length && page.clocks.every((clock) => clock.seconds.length)) axes.push("time");

const view = { axis: "step", smooth: 0, clocks: page.clocks, resumed: page.resumed, domains: {} };
for (const axis of axes) {
  let [low, high] = [Infinity, -Infinity];
  for (const chart of curveCharts) {
    for (const one of chart.series) {
      for (const step of [one.x[0], one.x.at(-1), one.bad?.at(-1) ?? one.x[0]]) {
        const at = placed(step, one.run, axis, page.clocks);
        low = Math.min(low, at);
        high = Math.max(high, at);
      }
    }
  }
  // Close to the beginning is the beginning.
  if (low > 0 && low < 0.15 * high) low = 0;
  if (low === high) [low, high] = [low - 1, high + 1];
  view.domains[axis] = [low, high];
}

let waiting = false;
let wanted = null;
view.point = (value) => {
  wanted = value;
  if (waiting) return;
  waiting = true;
  requestAnimationFrame(() => {
    waiting = false;
    for (const { plot } of drawn.values()) plot?.show(wanted);
  });
};

function drawOne(node) {
  const room = node.clientWidth; // 0 in a section that is folded
  const key = `${room} ${view.axis} ${view.smooth}`;
  if (!room || drawn.get(node)?.key === key) return;
  const chart = page.charts[Number(node.dataset.chart)];
  drawn.set(node, { key, plot: draw[chart.kind](node, chart, view) });
}

function drawAll() {
  document.querySelectorAll(".chart").forEach(drawOne);
}

if (curveCharts.length) controls.hidden = false;
for (const input of controls.elements.axis) {
  input.closest("label").hidden = !axes.includes(input.value);
  input.addEventListener("change", () => {
    view.axis = input.value;
    drawAll();
  });
}
controls.querySelector("fieldset").hidden = axes.length < 2;
controls.elements.smooth.addEventListener("input", (event) => {
  view.smooth = Number(event.target.value);
  controls.querySelector("output").textContent = view.smooth.toFixed(2);
  drawAll();
});
controls.addEventListener("submit", (event) => event.preventDefault());
controls.reset(); // browsers keep what was typed before a reload

// Of a folded section that opens as well: what was 0 wide is so no longer.
const sizes = new ResizeObserver((changes) => changes.forEach(({ target }) => drawOne(target)));
document.querySelectorAll(".chart").forEach((node) => sizes.observe(node));
window.addEventListener("beforeprint", drawAll);
drawAll();
document.body.dataset.drawn = "yes";
