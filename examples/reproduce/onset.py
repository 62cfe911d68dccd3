# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How large must one step be before accuracy collapses, counted in safe radii r?

python examples/reproduce/onset.py

P. Sao, arXiv 2603.13552, has it that a step is safe below r = 1, where r is its length in units of
rho_a = pi / largest spread of the logits' slopes along it. Each net is trained, then moved by one
step of growing length: down the gradient of the whole training set, or along a random direction
(Gaussian, one a seed). The onset is the first r of a grid, ten to a decade, where something has
happened. Slopes are exact (forward mode), BatchNorm uses its running statistics.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import stdev
from typing import Any

import torch
from networks import KINDS, network, train
from study import Claim, Digits, Scores, digits, options, write
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn import functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_losses.metrics.step_radius.bounds import rho_a

GRID = [10 ** (k / 10) for k in range(-15, 26)]  # r from 0.03 to 316
DIRECTIONS = ("descent", "random")
PAPER = "2603.13552"
TEN, FIFTY = "r: accuracy -10 points", "r: accuracy -50 points"
RISE, LENGTH = "r: loss +10 %", "length: accuracy -10 points"
SAFE_DROP, SAFE_LOSS = "points lost at r <= 1", "loss ratio at r <= 1"
SPREAD_LENGTH, SPREAD_R = "sd over nets of log10 length", "sd over nets of log10 r"
SMALL = {"fontSize": 14, "fontWeight": "normal"}
Direction = dict[str, Tensor]


def direction(name: str, net: nn.Module, data: Digits, seed: int) -> Direction:
    """A unit direction in the space of all parameters."""
    named = dict(net.named_parameters())
    if name == "descent":
        loss = F.cross_entropy(net(data.x), data.y)
        parts = [-slope for slope in torch.autograd.grad(loss, list(named.values()))]
    else:
        torch.manual_seed(seed)
        parts = [torch.randn_like(p) for p in named.values()]
    length = torch.stack([part.norm() for part in parts]).norm()
    return {key: part / length for key, part in zip(named, parts, strict=True)}


def at(net: nn.Module, parameters: dict[str, Tensor], x: Tensor) -> Tensor:
    """Logits of other parameters."""
    logits: Tensor = functional_call(net, parameters, (x,))
    return logits


def onset(values: Sequence[bool]) -> float:
    """The first r where it has happened; the end of the grid where it never does."""
    return next((r for r, happened in zip(GRID, values, strict=True) if happened), GRID[-1])


@torch.no_grad()
def walk(net: nn.Module, unit: Direction, data: Digits) -> tuple[dict[str, float], list[float]]:
    """Onsets along a direction, and the training accuracy at each r."""
    start = {name: p.detach() for name, p in net.named_parameters()}
    with sdpa_kernel(SDPBackend.MATH):  # fused attention has no forward mode
        slopes = jvp(lambda p: at(net, p, data.x), (start,), (unit,))[1]
    radius = float(rho_a(slopes).min())
    losses, accuracies = [], []
    for r in (0.0, *GRID):
        moved = at(net, {n: p + r * radius * unit[n] for n, p in start.items()}, data.x)
        losses.append(float(F.cross_entropy(moved, data.y)))
        accuracies.append(float((moved.argmax(-1) == data.y).float().mean()))
    loss, accuracy, safe = losses[0], accuracies[0], sum(r <= 1 for r in GRID) + 1
    tenth = onset([a < accuracy - 0.1 for a in accuracies[1:]])
    found = {
        RISE: onset([v > 1.1 * loss for v in losses[1:]]),
        TEN: tenth,
        FIFTY: onset([a < accuracy - 0.5 for a in accuracies[1:]]),
        LENGTH: tenth * radius,
        SAFE_DROP: 100 * (accuracy - min(accuracies[:safe])),
        SAFE_LOSS: max(losses[:safe]) / loss,
    }
    return found, accuracies[1:]


def spreads(scores: Scores, seeds: int) -> Scores:
    """How far the nets are apart in where ten points are lost, by length and by r, a seed each."""
    found: Scores = {}
    for name in DIRECTIONS:
        found[f"all nets, {name}"] = {
            title: [
                stdev(math.log10(scores[f"{kind}, {name}"][column][seed]) for kind in KINDS)
                for seed in range(seeds)
            ]
            for title, column in ((SPREAD_LENGTH, LENGTH), (SPREAD_R, TEN))
        }
    return found


def picture(curves: dict[str, list[dict[str, Any]]], seeds: int) -> Any:
    """A panel a direction, with a rule at r = 1."""
    import altair as alt
    from report import GREY, lines

    rule = alt.Chart(alt.InlineData(values=[{"x": 1}])).mark_rule(color=GREY, strokeDash=[4, 3])
    panels = [
        lines(
            rows, "r", "training accuracy", {"text": f"{name} direction"} | SMALL, 0, 360, log="x"
        )
        + rule.encode(x="x:Q")
        for name, rows in curves.items()
    ]
    title = {
        "text": "Training accuracy after one step of r safe radii",
        "subtitle": f"trained nets on digits; mean of {seeds} seeds; the dashed line is r = 1",
    }
    return alt.hconcat(*panels, title=title, spacing=40)


def main(argv: Sequence[str] | None = None) -> None:
    ran = options("onset", seeds=5, epochs=5, argv=argv, lr=3e-3)
    data = digits()
    scores: Scores = {f"{kind}, {name}": {} for kind in KINDS for name in DIRECTIONS}
    curves: dict[str, list[dict[str, Any]]] = {name: [] for name in DIRECTIONS}
    for kind in KINDS:
        for seed in range(ran.seeds):
            net = network(kind, seed)
            train(net, data, epochs=ran.epochs, seed=seed, lr=ran.lr)
            for name in DIRECTIONS:
                found, accuracies = walk(net, direction(name, net, data, seed), data)
                for column, value in found.items():
                    scores[f"{kind}, {name}"].setdefault(column, []).append(value)
                curves[name] += [
                    {"method": kind, "r": r, "training accuracy": value}
                    for r, value in zip(GRID, accuracies, strict=True)
                ]
    claimed = [
        Claim(f"{row}: {words}", row, value, column, sign)
        for words, value, column, sign in (
            (f"fewer than 10 points are lost up to r = 1 ({PAPER})", 10.0, SAFE_DROP, -1),
            (f"the loss rises by 10 % only beyond r = 1 ({PAPER})", 1.0, RISE, 1),
            ("10 points are lost before r = 10", 10.0, TEN, -1),
        )
        for row in scores
    ]
    more = spreads(scores, ran.seeds)
    claimed += [
        Claim(
            f"{row}: r tells better than length where 10 points are lost ({PAPER})",
            *(row, row, SPREAD_R, -1, 0.0, SPREAD_LENGTH),
        )
        for row in more
    ]
    setting = "Adam at {lr:g}, batches of 64, under Lightning's Trainer"
    write("onset", scores, claimed, picture(curves, ran.seeds), ran, setting, more)


if __name__ == "__main__":
    main()
