# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A small picture of a loss between two classes: its value and its slope over the margin, as SVG.

Drawn for losses of rows that read logits and target alone and see only differences of logits; the
numbers are the loss's own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from html import escape

import torch
from omegaconf import OmegaConf
from torch import Tensor

from lightning_losses.config.build import build_objective, compose_losses
from lightning_losses.config.facts import Facts
from lightning_losses.objective import Objective

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 560, 230, 44, 12, 26, 48
REACH, POINTS = 5.0, 81
COLOURS = {"value": "#2f7fb8", "slope": "#d9772b"}
#: One score a row and yes or no, instead of a column a class.
ONE_SCORE = ("bce", "binary_focal")


def drawable(key: str, one: Facts) -> bool:
    """Whether two classes and a margin say all there is to say of this loss."""
    return (
        one.scope == "rows"
        and not (one.target_transform or one.row_weighting or one.aggregation)
        and one.family in ("classification", "robust")
        and set(one.tensors) <= {"logits", "target"}
        and key != "spherical_z"  # standardised logits of two classes are 1 and -1
    )


def curves(names: Sequence[str]) -> dict[str, str]:
    """SVG of each of these losses that sees only the margin, as its YAML has it and of weight 1."""
    nodes = OmegaConf.to_container(compose_losses(list(names)), resolve=True)
    assert isinstance(nodes, dict)
    margin = torch.linspace(-REACH, REACH, POINTS, dtype=torch.float64)
    out = {}
    for key in names:
        objective = build_objective({key: nodes[key] | {"weight": 1.0}}, reduction="none")
        value, slope = along(objective, margin, 0.0, key in ONE_SCORE)
        if torch.allclose(value, along(objective, margin, 1.0, key in ONE_SCORE)[0]):
            out[key] = svg(margin.tolist(), {"value": value.tolist(), "slope": slope.tolist()})
    return out


def along(
    objective: Objective, margin: Tensor, other: float, one_score: bool
) -> tuple[Tensor, Tensor]:
    """Value and slope in the margin, where the logit of the other class is this."""
    margin = margin.clone().requires_grad_()
    if one_score:
        logits, target = margin, torch.ones_like(margin)
    else:
        logits = torch.stack([margin + other, torch.full_like(margin, other)], 1)
        target = torch.zeros(len(margin), dtype=torch.long)
    value = objective(logits, target.detach()).total
    (slope,) = torch.autograd.grad(value.sum(), margin)
    return value.detach(), slope


def svg(x: list[float], lines: dict[str, list[float]]) -> str:
    """Lines over a margin, with the probability it means below."""
    every = [0.0, *(y for line in lines.values() for y in line)]
    low, high = min(every), max(every)
    pad = 0.05 * (high - low or 1.0)
    low, high = low - pad, high + pad

    def at(u: float, v: float) -> tuple[float, float]:
        across = LEFT + (u + REACH) / (2 * REACH) * (WIDTH - LEFT - RIGHT)
        return across, TOP + (high - v) / (high - low) * (HEIGHT - TOP - BOTTOM)

    style = 'fill="currentColor" font-size="11" font-family="sans-serif"'
    size = f'viewBox="0 0 {WIDTH} {HEIGHT}" width="{WIDTH}" style="max-width:100%;height:auto"'
    parts = [f'<svg {size} role="img">']
    for tick in range(-4, 5, 2):
        across, _ = at(tick, 0)
        p = 1 / (1 + math.exp(-tick))
        bottom = HEIGHT - BOTTOM
        parts.append(
            f'<path d="M{across:.1f} {TOP}V{bottom}" stroke="currentColor" opacity="0.12"/>'
            f'<text x="{across:.1f}" y="{bottom + 15}" text-anchor="middle" {style}>{tick}</text>'
            f'<text x="{across:.1f}" y="{bottom + 29}" text-anchor="middle" opacity="0.6" {style}>'
            f"p {p:.2g}</text>"
        )
    for tick in ticks(low, high):
        _, down = at(0, tick)
        strong = 0.5 if tick == 0 else 0.12
        parts.append(
            f'<path d="M{LEFT} {down:.1f}H{WIDTH - RIGHT}" stroke="currentColor" '
            f'opacity="{strong}"/>'
            f'<text x="{LEFT - 6}" y="{down + 4:.1f}" text-anchor="end" {style}>{tick:g}</text>'
        )
    for index, (name, line) in enumerate(lines.items()):
        path = "L".join(f"{a:.1f} {b:.1f}" for a, b in map(at, x, line))
        dash = ' stroke-dasharray="6 4"' if index else ""
        parts.append(
            f'<path d="M{path}" fill="none" stroke="{COLOURS[name]}" stroke-width="2"{dash}/>'
        )
    words = {"value": "value, nats or the loss's own unit", "slope": "slope (dashed)"}
    for index, name in enumerate(lines):
        colour = style.replace("currentColor", COLOURS[name])
        parts.append(f'<text x="{LEFT + index * 230}" y="14" {colour}>{escape(words[name])}</text>')
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(
        f'<text x="{middle}" y="{HEIGHT - 4}" text-anchor="middle" {style}>logit of the target '
        "minus that of the other class</text></svg>"
    )
    return "".join(parts)


def ticks(low: float, high: float) -> list[float]:
    """About five round numbers between two others."""
    raw = (high - low) / 5
    size = 10 ** math.floor(math.log10(raw))
    step = next(size * m for m in (1, 2, 5, 10) if size * m >= raw)
    return [round(i * step, 10) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]
