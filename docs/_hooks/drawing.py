# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Lines in a frame, as SVG in the colours of the page: what the site draws by itself."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from html import escape
from typing import NamedTuple

WIDTH, HEIGHT, LEFT, RIGHT, BOTTOM = 560, 204, 52, 12, 48
ROW = 16  # of the legend
BLUE, ORANGE = "#2f7fb8", "#d9772b"
TEXT = 'fill="currentColor" font-size="11" font-family="sans-serif"'


class Line(NamedTuple):
    """Points from left to right, how they are called and drawn, and where something was said."""

    label: str
    points: Sequence[tuple[float, float]]
    colour: str = BLUE
    dashed: bool = False
    mark: float | None = None


class Tick(NamedTuple):
    """A place on the horizontal axis, and what is written below it."""

    at: float
    label: str
    below: str = ""


def svg(
    lines: Sequence[Line], across: Sequence[Tick], title: str, log: bool = False, zero: bool = False
) -> str:
    """The lines over a horizontal axis; the vertical one fits them, and 0 if that is asked for."""
    points = [(x, y) for line in lines for x, y in line.points if not log or y > 0]
    left, right = min(x for x, _ in points), max(x for x, _ in points)
    heights = [math.log10(y) if log else y for _, y in points] + [0.0] * zero
    pad = 0.05 * (max(heights) - min(heights) or 1.0)
    low, high = min(heights) - pad, max(heights) + pad
    top, bottom = 10 + ROW * len(lines), HEIGHT + ROW * len(lines) - BOTTOM

    def at(x: float, y: float) -> tuple[float, float]:
        y = math.log10(y) if log else y
        return (
            LEFT + (x - left) / (right - left or 1.0) * (WIDTH - LEFT - RIGHT),
            top + (high - y) / (high - low) * (bottom - top),
        )

    size = f'viewBox="0 0 {WIDTH} {bottom + BOTTOM}" width="{WIDTH}"'
    parts = [f'<svg {size} style="max-width:100%;height:auto" role="img">']
    for tick in across:
        x, _ = at(tick.at, 1.0)
        parts.append(
            f'<path d="M{x:.1f} {top}V{bottom}" stroke="currentColor" opacity="0.12"/>'
            f'<text x="{x:.1f}" y="{bottom + 15}" text-anchor="middle" {TEXT}>{tick.label}</text>'
            f'<text x="{x:.1f}" y="{bottom + 29}" text-anchor="middle" opacity="0.6" {TEXT}>'
            f"{tick.below}</text>"
        )
    for value in powers(low, high) if log else ticks(low, high):
        _, y = at(left, value)
        strong = 0.5 if value == 0 else 0.12
        parts.append(
            f'<path d="M{LEFT} {y:.1f}H{WIDTH - RIGHT}" stroke="currentColor" opacity="{strong}"/>'
            f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end" {TEXT}>{value:g}</text>'
        )
    for index, line in enumerate(lines):
        parts += drawn(line, [at(x, y) for x, y in line.points if not log or y > 0])
        if line.mark is not None:
            x, y = at(line.mark, height(line.points, line.mark))
            parts.append(f'<circle cx="{x:.1f}" cy="{y:.1f}" r="5" fill="{line.colour}"/>')
        words = TEXT.replace("currentColor", line.colour)
        parts.append(f'<text x="{LEFT}" y="{14 + ROW * index}" {words}>{escape(line.label)}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{bottom + BOTTOM - 4}" text-anchor="middle" {TEXT}>'
        f"{escape(title)}</text></svg>"
    )
    return "".join(parts)


def drawn(line: Line, places: Sequence[tuple[float, float]]) -> Iterator[str]:
    """A line through some places."""
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    dash = ' stroke-dasharray="6 4"' if line.dashed else ""
    yield f'<path d="M{path}" fill="none" stroke="{line.colour}" stroke-width="2"{dash}/>'


def height(points: Sequence[tuple[float, float]], x: float) -> float:
    """What a line is at the last point that is not beyond x."""
    return next((b for a, b in reversed(points) if a <= x), points[0][1])


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two others."""
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def powers(low: float, high: float) -> list[float]:
    """Powers of ten between two exponents; also 2 and 5 times such where they span less than 2."""
    times = (1, 2, 5) if high - low < 2 else (1,)
    stride = max(1, math.ceil((high - low) / 6))
    exponents = range(math.floor(low), math.ceil(high) + 1, stride)
    return [m * 10.0**e for e in exponents for m in times if low <= math.log10(m * 10.0**e) <= high]
