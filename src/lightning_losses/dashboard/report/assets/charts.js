// SPDX-FileCopyrightText: 2026 The lightning-losses authors
// SPDX-License-Identifier: Apache-2.0
// Draws a chart as SVG into an element. No library: a report must open without the network, and a
// plotting library inside would weigh more than most runs' data.

const SVG = "http://www.w3.org/2000/svg";
const COLOURS = 7;
const DASHES = ["", "6 3", "2 2"];
const ROW = 14; // between labels
const SAID = 12; // curves of which the readout over a plot tells the values
const FEW = 40; // points of a curve: up to here each is marked

function make(name, attributes, parent, text) {
  const node = document.createElementNS(SVG, name);
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

function html(name, className, parent, text) {
  const node = document.createElement(name);
  if (className) node.className = className;
  if (text !== undefined) node.textContent = text;
  if (parent) parent.append(node);
  return node;
}

const pen = document.createElement("canvas").getContext("2d");
function widthOf(text) {
  pen.font = "12px system-ui, 'Liberation Sans', Arial, Helvetica, sans-serif";
  return pen.measureText(text).width;
}

function shortened(text, room) {
  if (widthOf(text) <= room) return text;
  let end = text.length;
  while (end > 1 && widthOf(text.slice(0, end) + "…") > room) end -= 1;
  return text.slice(0, end) + "…";
}

const colour = (at) => `var(--c${at % COLOURS})`;
const dashed = (at) => DASHES[Math.min(Math.floor(at / COLOURS), DASHES.length - 1)];

// Numbers ----------------------------------------------------------------------------------------

function plain(value, digits = 4) {
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size >= 1e6 || size < 1e-4) {
    return value.toExponential(Math.max(0, digits - 1)).replace(/\.?0+e/, "e").replace("e+", "e");
  }
  return String(Number(value.toPrecision(Math.max(digits, Math.ceil(Math.log10(size))))));
}

function tickLabel(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return plain(value, 3);
  if (size >= 1e6) return `${plain(value / 1e6, 4)}M`;
  if (size >= 1e4) return `${plain(value / 1e3, 4)}k`;
  return plain(Number(value.toPrecision(12)), 6);
}

function elapsed(seconds, span) {
  if (span >= 2 * 3600) return `${plain(Number((seconds / 3600).toFixed(2)), 4)} h`;
  if (span >= 120) return `${plain(Number((seconds / 60).toFixed(1)), 4)} min`;
  return `${plain(Number(seconds.toFixed(1)), 4)} s`;
}

function ticksOf(low, high, about, whole) {
  const span = high - low;
  if (!(span > 0)) return [low];
  let size = 10 ** Math.floor(Math.log10(span / about));
  const factor = span / about / size;
  size *= factor < 1.5 ? 1 : factor < 3.5 ? 2 : factor < 7.5 ? 5 : 10;
  if (whole) size = Math.max(1, size);
  const ticks = [];
  for (let at = Math.ceil(low / size - 1e-9); at * size <= high + size * 1e-9; at += 1) {
    ticks.push(Number((at * size).toPrecision(12)));
  }
  return ticks;
}

function between(knots, values, x) {
  if (x <= knots[0]) return values[0];
  const last = knots.length - 1;
  if (x >= knots[last]) return values[last];
  let low = 0;
  let high = last;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (knots[middle] <= x) low = middle;
    else high = middle;
  }
  const share = (x - knots[low]) / (knots[high] - knots[low] || 1);
  return values[low] + share * (values[high] - values[low]);
}

// A step on the axis that is shown: itself, its epoch, or its time since the start.
export function placed(step, run, axis, clocks) {
  if (axis === "step") return step;
  const clock = clocks[run];
  return between(clock.steps, axis === "epoch" ? clock.epochs : clock.seconds, step);
}

// An average over what came before, weighed down by `strength` every 300th of the curve, so that
// curves of few points and of many lag behind alike; unbiased from the start.
export function smoothed(values, strength) {
  const weight = strength ** Math.max(1, 300 / values.length);
  let sum = 0;
  let total = 0;
  return values.map((value) => {
    sum = weight * sum + (1 - weight) * value;
    total = weight * total + 1 - weight;
    return sum / total;
  });
}

// Curves -----------------------------------------------------------------------------------------

export function drawCurves(node, chart, view) {
  node.replaceChildren();
  const readout = html("div", "readout", node);
  const full = node.clientWidth;
  const plotHeight = chart.levels ? 96 : 200;
  const top = chart.unit || chart.log ? 22 : 8;
  const [low, high] = chart.domain;
  const ticks = chart.ticks ?? ticksOf(low, high, 5, false);
  const left = Math.ceil(Math.max(...ticks.map((tick) => widthOf(tickLabel(tick))), 18)) + 9;

  const lines = chart.series.map((one, at) => {
    const runSteps = one.x.map((step) => placed(step, one.run, view.axis, view.clocks));
    // A run has its colour in every chart, also where another run has no curve.
    const hue = chart.by_run ? one.run : at;
    const line = { name: one.name, at, hue, xs: runSteps, ys: one.y };
    if (view.smooth > 0 && !chart.levels && one.y.length > 2) {
      const [steps, means] = one.mean ?? [one.x, one.y];
      line.smooth = {
        xs: steps.map((step) => placed(step, one.run, view.axis, view.clocks)),
        ys: smoothed(means, view.smooth),
      };
    }
    line.bad = (one.bad ?? []).map((step) => placed(step, one.run, view.axis, view.clocks));
    return line;
  });
  const edges = chart.band ?? [];
  const shown = lines.filter((line) => !edges.includes(line.at));
  const labelled = (shown.length ? shown : lines).map((line) => ({
    text: line.name, colour: colour(line.hue), dash: dashed(line.hue),
    value: (line.smooth ?? line).ys.at(-1), end: line.xs.at(-1),
  }));
  if (edges.length) {
    const [under, over] = edges.map((at) => lines[at]);
    labelled.push({
      text: `${under.name} to ${over.name}`, colour: colour(0), dash: "", area: true,
      value: (over.ys.at(-1) + under.ys.at(-1)) / 2, end: over.xs.at(-1),
    });
  }
  const room = Math.max(...labelled.map((one) => widthOf(one.text)));
  const beside = labelled.length > 1 && labelled.length <= 10 && room <= 0.3 * full;
  const right = beside ? Math.ceil(room) + 20 : 10;
  const plotWidth = Math.max(60, full - left - right);
  const height = top + plotHeight + 34;
  const svg = make("svg", { viewBox: `0 0 ${full} ${height}`, height, role: "img" }, node);

  const [start, end] = view.domains[view.axis];
  const x = (value) => left + ((value - start) / (end - start || 1)) * plotWidth;
  const share = chart.log
    ? (value) => Math.log(value / low) / Math.log(high / low)
    : (value) => (value - low) / (high - low || 1);
  const y = (value) => top + plotHeight * (1 - Math.min(1, Math.max(0, share(value))));

  for (const line of chart.lines) {
    if (line.above === null) continue;
    const edge = y(line.value);
    const box = line.above
      ? { y: top, height: Math.max(0, edge - top) }
      : { y: edge, height: Math.max(0, top + plotHeight - edge) };
    make("rect", { class: "tint", x: left, width: plotWidth, ...box }, svg);
  }
  for (const tick of ticks) {
    make("line", { class: "grid-line", x1: left, x2: left + plotWidth, y1: y(tick), y2: y(tick) },
      svg);
    make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg, tickLabel(tick));
  }
  const unit = [chart.unit, chart.log ? "log scale" : ""].filter(Boolean).join(", ");
  if (unit) make("text", { x: 0, y: 11 }, svg, unit);
  drawXAxis(svg, view, x, start, end, left, plotWidth, top + plotHeight);
  for (const step of view.resumed) {
    const at = x(placed(step, 0, view.axis, view.clocks));
    make("line", { class: "resumed", x1: at, x2: at, y1: top, y2: top + plotHeight }, svg);
    make("text", { x: at + 3, y: top + 10, class: "halo" }, svg, "resumed");
  }
  if (edges.length) drawBand(svg, lines[edges[0]], lines[edges[1]], x, y);
  for (const line of [...(shown.length ? shown : lines)].reverse()) {
    drawLine(svg, line, chart, x, y, twin(chart, line.at));
  }
  for (const line of lines) {
    for (const at of line.bad) {
      const mark = make("path", { class: "bad",
        d: `M${x(at) - 3},${top + 3}l6,6m0,-6l-6,6` }, svg);
      make("title", {}, mark, `${line.name}: NaN or infinite`);
    }
  }
  for (const line of chart.lines) {
    const edge = y(line.value);
    make("line", { class: line.above === null ? "mark" : "limit", x1: left, x2: left + plotWidth,
      y1: edge, y2: edge }, svg);
    const above = edge + (edge < top + 16 ? 13 : -5);
    const text = shortened(line.label, plotWidth - 10);
    const end = freerEnd(lines, x, y, left, plotWidth, widthOf(text), above - 4);
    const words = make("text", { class: "halo", y: above, "text-anchor": end,
      x: end === "start" ? left + 5 : left + plotWidth - 5 }, svg, text);
    if (line.above !== null) words.style.fill = "var(--limit)";
  }
  if (beside) drawLabels(svg, labelled, x, y, top, plotHeight, left + plotWidth);
  else if (labelled.length > SAID) drawLegend(node, labelled); // else the readout is one

  const cursor = make("line", { class: "cursor", y1: top, y2: top + plotHeight, visibility: "hidden" },
    svg);
  const dots = lines.map((line) => make("circle", { r: 3.2, visibility: "hidden",
    style: `fill:${colour(line.hue)}` }, svg));
  const plot = { node, lines, dots, x, y, svg, readout, cursor, left, plotWidth, start, end, edges };
  plot.show = (value) => showCursor(plot, value, view);
  plot.show(null);
  const move = (event) => {
    const box = svg.getBoundingClientRect();
    const at = ((event.clientX - box.left) / box.width) * full;
    const within = Math.min(1, Math.max(0, (at - left) / plotWidth));
    view.point(start + within * (end - start));
  };
  svg.addEventListener("pointermove", move);
  svg.addEventListener("pointerdown", move);
  svg.addEventListener("pointerleave", () => view.point(null));
  return plot;
}

// The end of the plot at which fewer points lie where words would stand.
function freerEnd(lines, x, y, left, plotWidth, wide, middle) {
  let [first, last] = [0, 0];
  for (const line of lines) {
    line.xs.forEach((value, i) => {
      if (Math.abs(y(line.ys[i]) - middle) > 10) return;
      const at = x(value);
      if (at < left + wide + 10) first += 1;
      if (at > left + plotWidth - wide - 10) last += 1;
    });
  }
  return first > last ? "end" : "start";
}

// Whether an earlier curve lies under this one, which is then dashed so that both are seen.
function twin(chart, at) {
  const own = chart.series[at];
  return chart.series.some((other, place) => place > at && other.y.length === own.y.length
    && other.y.every((value, i) => value === own.y[i]) && other.x[0] === own.x[0]);
}

function pathOf(xs, ys, x, y, levels) {
  const parts = [];
  xs.forEach((value, i) => {
    const px = x(value).toFixed(1);
    if (i && levels) parts.push(`H${px}`);
    parts.push(`${i ? "L" : "M"}${px},${y(ys[i]).toFixed(1)}`);
  });
  return parts.join("");
}

function drawLine(svg, line, chart, x, y, twinned) {
  const style = `stroke:${colour(line.hue)}`;
  const dash = twinned ? "7 7" : dashed(line.hue);
  const base = { class: "curve", style, "stroke-dasharray": dash };
  const d = pathOf(line.xs, line.ys, x, y, chart.levels);
  if (line.smooth) {
    make("path", { ...base, class: "curve raw", d }, svg);
    make("path", { ...base, d: pathOf(line.smooth.xs, line.smooth.ys, x, y, false) }, svg);
  } else {
    make("path", { ...base, d }, svg);
  }
  if (line.xs.length <= FEW) {
    line.xs.forEach((value, i) => make("circle", { cx: x(value).toFixed(1),
      cy: y(line.ys[i]).toFixed(1), r: 2.4, style: `fill:${colour(line.hue)}` }, svg));
  }
}

function drawBand(svg, under, over, x, y) {
  const back = over.xs.map((value, i) => `L${x(value).toFixed(1)},${y(over.ys[i]).toFixed(1)}`);
  make("path", { class: "band", d: `${pathOf(under.xs, under.ys, x, y)}${back.reverse().join("")}Z` },
    svg);
}

function drawXAxis(svg, view, x, start, end, left, width, bottom) {
  make("line", { class: "axis-line", x1: left, x2: left + width, y1: bottom, y2: bottom }, svg);
  const about = Math.max(2, Math.min(6, Math.floor(width / 75)));
  const unit = view.axis === "time" ? (end - start >= 7200 ? 3600 : end - start >= 120 ? 60 : 1) : 1;
  const ticks = ticksOf(start / unit, end / unit, about, view.axis !== "time");
  for (const tick of ticks) {
    const at = x(tick * unit);
    make("line", { class: "axis-line", x1: at, x2: at, y1: bottom, y2: bottom + 4 }, svg);
    make("text", { x: at, y: bottom + 17, "text-anchor": "middle" }, svg, tickLabel(tick));
  }
  const unitName = { 1: "s", 60: "min", 3600: "h" }[unit];
  const title = view.axis === "time" ? `time (${unitName})` : view.axis;
  make("text", { x: left + width / 2, y: bottom + 31, "text-anchor": "middle" }, svg, title);
}

// Labels at the ends of their curves, moved apart where they would cover each other.
function drawLabels(svg, labelled, x, y, top, plotHeight, edge) {
  const places = labelled.map((one) => ({ ...one, wish: y(one.value), from: x(one.end) }))
    .sort((a, b) => a.wish - b.wish);
  let floor = top + 4;
  for (const one of places) {
    one.at = Math.max(one.wish, floor);
    floor = one.at + ROW;
  }
  let ceiling = top + plotHeight + 4;
  for (const one of [...places].reverse()) {
    one.at = Math.min(one.at, ceiling);
    ceiling = one.at - ROW;
  }
  for (const one of places) {
    make("path", { d: `M${Math.min(one.from, edge) + 2},${one.wish}L${edge + 12},${one.at}`,
      fill: "none", style: `stroke:${one.colour}`, opacity: 0.55, "stroke-dasharray": one.dash },
    svg);
    const text = make("text", { x: edge + 15, y: one.at + 4, class: "end-label" }, svg, one.text);
    text.style.fill = one.colour;
  }
}

function drawLegend(node, labelled) {
  const legend = html("div", "legend", node);
  for (const one of labelled) swatch(legend, one.colour, one.dash, one.text);
}

function swatch(parent, tone, dash, text) {
  const item = html("span", "", parent);
  const line = html("i", dash ? "dashed" : "", item);
  line.style.borderColor = tone;
  item.append(text);
}

function nearest(xs, value) {
  let low = 0;
  let high = xs.length - 1;
  while (high - low > 1) {
    const middle = (low + high) >> 1;
    if (xs[middle] <= value) low = middle;
    else high = middle;
  }
  return value - xs[low] <= xs[high] - value ? low : high;
}

function showCursor(plot, value, view) {
  const words = html("span", "", null);
  const pieces = [];
  if (value === null) {
    words.textContent = "last";
  } else {
    const span = plot.end - plot.start;
    const said = view.axis === "time" ? elapsed(value, span)
      : view.axis === "epoch" ? plain(Number(value.toFixed(2)))
        : Math.round(value).toLocaleString("en");
    words.textContent = view.axis === "time" ? said : `${view.axis} ${said}`;
    plot.cursor.setAttribute("x1", plot.x(value));
    plot.cursor.setAttribute("x2", plot.x(value));
  }
  plot.cursor.setAttribute("visibility", value === null ? "hidden" : "visible");
  plot.lines.forEach((line, at) => {
    const source = line.smooth ?? line;
    const place = value === null ? source.ys.length - 1 : nearest(source.xs, value);
    const dot = plot.dots[at];
    const off = value !== null && (value < source.xs[0] || value > source.xs.at(-1));
    dot.setAttribute("visibility", value === null || off ? "hidden" : "visible");
    dot.setAttribute("cx", plot.x(source.xs[place]));
    dot.setAttribute("cy", plot.y(source.ys[place]));
    if (!off && pieces.length < SAID) {
      const item = html("span", "");
      swatch(item, colour(line.hue), dashed(line.hue), `${line.name} ${plain(source.ys[place])}`);
      pieces.push(item);
    }
  });
  plot.readout.replaceChildren(words, ...pieces);
}

// Diagrams ---------------------------------------------------------------------------------------

// A caption, a slider where there are several frames, and what a frame draws.
function drawFrames(node, chart, draw) {
  node.replaceChildren();
  const caption = html("div", "caption", node);
  const svg = make("svg", { role: "img" }, node);
  const last = chart.frames.length - 1;
  const show = (at) => {
    node.dataset.frame = at;
    caption.textContent = chart.frames[at].caption;
    svg.replaceChildren();
    draw(svg, chart.frames[at]);
  };
  const kept = Math.min(Number(node.dataset.frame ?? last), last);
  if (last > 0) {
    const row = html("label", "frames", node, `${chart.over}, first to last`);
    const slider = html("input", "", row);
    Object.assign(slider, { type: "range", min: 0, max: last, step: 1, value: kept });
    slider.addEventListener("input", () => show(Number(slider.value)));
  }
  show(kept);
  return null;
}

export function drawReliability(node, chart) {
  const full = node.clientWidth;
  const [left, right, top, height, strip] = [42, 10, 8, 190, 50];
  const width = full - left - right;
  return drawFrames(node, chart, (svg, frame) => {
    const bottom = top + height;
    const foot = bottom + 26 + strip;
    svg.setAttribute("viewBox", `0 0 ${full} ${foot + 36}`);
    svg.setAttribute("height", foot + 36);
    const x = (value) => left + value * width;
    const y = (value) => bottom - value * height;
    const most = Math.max(...frame.bins.map((bin) => bin[2]));
    for (const tick of [0, 0.2, 0.4, 0.6, 0.8, 1]) {
      make("line", { class: "grid-line", x1: left, x2: left + width, y1: y(tick), y2: y(tick) },
        svg);
      make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg, tick.toFixed(1));
      make("text", { x: x(tick), y: foot + 16, "text-anchor": "middle" }, svg, tick.toFixed(1));
    }
    make("text", { x: x(0.5), y: foot + 31, "text-anchor": "middle" }, svg, "confidence");
    const up = make("text", { "text-anchor": "middle",
      transform: `translate(10 ${top + height / 2}) rotate(-90)` }, svg, "accuracy");
    up.setAttribute("class", "soft");
    for (const [lower, upper, count, , accuracy] of frame.bins) {
      const box = { x: x(lower), width: Math.max(1, x(upper) - x(lower)) };
      make("rect", { class: "bar", ...box, y: y(accuracy), height: bottom - y(accuracy) }, svg);
      const tall = (count / most) * strip;
      make("rect", { class: "count", ...box, y: foot - tall, height: tall }, svg);
      const text = count < 1000 ? String(count) : tickLabel(Number(count.toPrecision(2)));
      if (widthOf(text) < box.width + 4) {
        make("text", { x: box.x + box.width / 2, y: foot - tall - 3, "text-anchor": "middle",
          style: "font-size:9px" }, svg, text);
      }
    }
    make("line", { class: "diagonal", x1: x(0), y1: y(0), x2: x(1), y2: y(1) }, svg);
    for (const [, , count, confidence, accuracy] of frame.bins) {
      const dot = make("circle", { cx: x(confidence), cy: y(accuracy), r: 3.6,
        style: "fill:var(--c0)" }, svg);
      make("title", {}, dot,
        `confidence ${plain(confidence)}, accuracy ${plain(accuracy)}, ${count} rows`);
    }
    make("line", { class: "axis-line", x1: left, x2: left + width, y1: bottom, y2: bottom }, svg);
    make("line", { class: "axis-line", x1: left, x2: left + width, y1: foot, y2: foot }, svg);
    make("text", { x: left - 6, y: foot + 4, "text-anchor": "end" }, svg, "0");
    make("text", { x: left - 6, y: foot - strip + 4, "text-anchor": "end" }, svg, tickLabel(most));
  });
}

// Dark blue to yellow, evenly in lightness, told apart with any colour vision.
const RAMP = [[68, 1, 84], [59, 82, 139], [33, 145, 140], [94, 201, 98], [253, 231, 37]];
function ramp(share) {
  const at = Math.min(1, Math.max(0, share)) * (RAMP.length - 1);
  const low = Math.min(Math.floor(at), RAMP.length - 2);
  const mix = RAMP[low].map((part, i) => Math.round(part + (at - low) * (RAMP[low + 1][i] - part)));
  return `rgb(${mix.join(",")})`;
}

export function drawHeatMap(node, chart) {
  const full = node.clientWidth;
  const { layers, heads } = chart;
  const left = Math.min(0.3 * full, Math.ceil(Math.max(...layers.map(widthOf)))) + 8;
  const width = full - left - 4;
  const row = Math.max(12, Math.min(34, 240 / layers.length));
  const column = width / heads.length;
  return drawFrames(node, chart, (svg, frame) => {
    const bottom = row * layers.length;
    svg.setAttribute("viewBox", `0 0 ${full} ${bottom + 66}`);
    svg.setAttribute("height", bottom + 66);
    layers.forEach((name, at) => {
      const text = make("text", { x: left - 6, y: (at + 0.5) * row + 4, "text-anchor": "end" }, svg,
        shortened(name, left - 8));
      make("title", {}, text, name);
    });
    const every = Math.ceil((Math.max(...heads.map(widthOf)) + 6) / column);
    heads.forEach((name, at) => {
      if (at % every === 0) {
        make("text", { x: left + (at + 0.5) * column, y: bottom + 15, "text-anchor": "middle" },
          svg, name);
      }
    });
    make("text", { x: left + width / 2, y: bottom + 30, "text-anchor": "middle" }, svg,
      "head (a row is a layer)");
    for (const [layer, head, fraction] of frame.cells) {
      const cell = make("rect", { class: "cell", x: left + head * column + 0.5, y: layer * row + 0.5,
        width: Math.max(1, column - 1), height: row - 1, style: `fill:${ramp(fraction)}` }, svg);
      make("title", {}, cell, `${layers[layer]}, head ${heads[head]}: ${plain(fraction)}`);
    }
    const scale = Math.min(160, width / 2);
    for (let at = 0; at < 32; at += 1) {
      make("rect", { x: left + 14 + (at / 32) * scale, y: bottom + 46, width: scale / 32 + 0.5,
        height: 10, style: `fill:${ramp((at + 0.5) / 32)}` }, svg);
    }
    make("text", { x: left + 2, y: bottom + 55 }, svg, "0");
    make("text", { x: left + 19 + scale, y: bottom + 55 }, svg, "1");
  });
}

export function drawPlane(node, chart) {
  node.replaceChildren();
  const full = node.clientWidth;
  const [left, top, height] = [46, 22, 210];
  const xs = chart.series.flatMap((one) => one.x);
  const ys = chart.series.flatMap((one) => one.y);
  const wide = Math.max(...chart.series.map((one) => widthOf(one.name)));
  const right = wide < 0.3 * full ? wide + 16 : 10;
  const width = full - left - right;
  const range = (values) => {
    const [low, high] = [Math.min(...values), Math.max(...values)];
    const margin = (high - low) * 0.05 || 0.5;
    return [low >= 0 ? Math.max(0, low - margin) : low - margin, high + margin];
  };
  const [x0, x1] = range(xs);
  const [y0, y1] = range(ys);
  const x = (value) => left + ((value - x0) / (x1 - x0)) * width;
  const y = (value) => top + height - ((value - y0) / (y1 - y0)) * height;
  const svg = make("svg", { viewBox: `0 0 ${full} ${top + height + 36}`, height: top + height + 36,
    role: "img" }, node);
  for (const tick of ticksOf(y0, y1, 5)) {
    make("line", { class: "grid-line", x1: left, x2: left + width, y1: y(tick), y2: y(tick) }, svg);
    make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg, tickLabel(tick));
  }
  for (const tick of ticksOf(x0, x1, 5)) {
    make("text", { x: x(tick), y: top + height + 16, "text-anchor": "middle" }, svg,
      tickLabel(tick));
  }
  make("line", { class: "axis-line", x1: left, x2: left + width, y1: top + height,
    y2: top + height }, svg);
  make("text", { x: left + width / 2, y: top + height + 31, "text-anchor": "middle" }, svg,
    chart.titles.x);
  make("text", { x: 0, y: 12 }, svg, chart.titles.y);
  const labelled = chart.series.map((one, at) => ({ text: one.name, colour: colour(at),
    dash: dashed(at), value: one.y.at(-1), end: one.x.at(-1) }));
  chart.series.forEach((one, at) => {
    make("path", { class: "curve", d: pathOf(one.x, one.y, x, y),
      style: `stroke:${colour(at)}`, "stroke-dasharray": dashed(at) }, svg);
    one.x.forEach((value, i) => {
      const dot = make("circle", { cx: x(value), cy: y(one.y[i]), r: 2.6,
        style: `fill:${colour(at)}` }, svg);
      make("title", {}, dot, `${one.name}, epoch ${one.epoch[i]}`);
    });
  });
  if (right > 10 && chart.series.length <= 12) {
    drawLabels(svg, labelled, x, y, top, height, left + width - 12);
  } else drawLegend(node, labelled);
  return null;
}

// Runs as points, with the curve of a law through them and its interval; x is logarithmic.
export function drawScatter(node, chart) {
  node.replaceChildren();
  const full = node.clientWidth;
  const [top, height] = [22, 210];
  const [x0, x1] = chart.x.domain;
  const [y0, y1] = chart.y.domain;
  const log = chart.y.ticks !== null;
  const ticks = chart.y.ticks ?? ticksOf(y0, y1, 5, false);
  const left = Math.ceil(Math.max(...ticks.map((tick) => widthOf(tickLabel(tick))), 18)) + 9;
  const named = chart.series.map((one, at) => ({ text: one.name, colour: colour(at), dash: "",
    value: one.line.at(-1)?.[1] ?? one.y.at(-1), end: one.line.at(-1)?.[0] ?? one.x.at(-1) }));
  const room = Math.max(...named.map((one) => widthOf(one.text)));
  const beside = named.length > 1 && room <= 0.35 * full;
  const width = full - left - (beside ? Math.ceil(room) + 20 : 10);
  const svg = make("svg", { viewBox: `0 0 ${full} ${top + height + 36}`, height: top + height + 36,
    role: "img" }, node);
  const x = (value) => left + (Math.log(value / x0) / Math.log(x1 / x0)) * width;
  const share = log ? (value) => Math.log(value / y0) / Math.log(y1 / y0)
    : (value) => (value - y0) / (y1 - y0);
  const y = (value) => top + height * (1 - Math.min(1, Math.max(0, share(value))));
  for (const tick of ticks) {
    make("line", { class: "grid-line", x1: left, x2: left + width, y1: y(tick), y2: y(tick) }, svg);
    make("text", { x: left - 6, y: y(tick) + 4, "text-anchor": "end" }, svg, tickLabel(tick));
  }
  let free = -Infinity; // where the last label ends
  for (const tick of chart.x.ticks) {
    const [at, half] = [x(tick), widthOf(tickLabel(tick)) / 2];
    make("line", { class: "axis-line", x1: at, x2: at, y1: top + height, y2: top + height + 4 },
      svg);
    if (at - half < free + 4 || at + half > full) continue;
    make("text", { x: at, y: top + height + 17, "text-anchor": "middle" }, svg, tickLabel(tick));
    free = at + half;
  }
  make("line", { class: "axis-line", x1: left, x2: left + width, y1: top + height,
    y2: top + height }, svg);
  make("text", { x: left + width / 2, y: top + height + 31, "text-anchor": "middle" }, svg,
    `${chart.titles.x}, log scale`);
  make("text", { x: 0, y: 11 }, svg,
    shortened(log ? `${chart.titles.y}, log scale` : chart.titles.y, full));
  chart.series.forEach((one, at) => {
    if (one.band.length) {
      const back = one.band.map((edge) => `L${x(edge[0]).toFixed(1)},${y(edge[2]).toFixed(1)}`);
      const under = pathOf(one.band.map((edge) => edge[0]), one.band.map((edge) => edge[1]), x, y);
      make("path", { class: "band", d: `${under}${back.reverse().join("")}Z` }, svg);
    }
    if (one.line.length) {
      make("path", { class: "curve", style: `stroke:${colour(at)}`,
        d: pathOf(one.line.map((point) => point[0]), one.line.map((point) => point[1]), x, y) },
      svg);
    }
    one.x.forEach((value, i) => {
      const dot = make("circle", { cx: x(value).toFixed(1), cy: y(one.y[i]).toFixed(1), r: 3.2,
        style: `fill:${colour(at)}` }, svg);
      const who = one.runs[i] ?? one.name;
      make("title", {}, dot, `${who}: ${plain(value)}, ${plain(one.y[i])}`);
    });
  });
  if (beside) drawLabels(svg, named, x, y, top, height, left + width);
  else if (named.length > 1) drawLegend(node, named);
  return null;
}
