# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What does TRADES buy against an attacker, and what does it cost on clean images?

python examples/reproduce/adversarial.py

Training attacks come from the PGD provider of conf/loss/trades.yaml, with its values (radius 0.031,
made for larger images) and with radius 0.1. The judge is another attack: 30 steps up the
cross-entropy from 2 random starts; a row counts only if it is right every time. The same number
of steps for all: one of trades costs about twelve passes, one of ce a single one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from study import (
    Claim,
    Digits,
    Options,
    Scores,
    accuracy,
    digits,
    fit,
    loss_config,
    mlp,
    options,
    write,
)
from torch import Tensor, nn

from lightning_losses import build_objective
from lightning_losses.providers import PGD

RADII = (0.031, 0.1, 0.2, 0.5)  # 0.5 makes every pixel grey: who resists it has fooled the attack
STEPS, STARTS = 30, 2
CLEAN, PAPER = "clean", "1901.08573"
SMALL, LARGE = "trades, radius 0.031", "trades, radius 0.1"


def config(method: str) -> Any:
    """Radius 0.1 takes a quarter of it a step; everything else as in the YAML."""
    wide = {"provider.logits_adv.epsilon": 0.1, "provider.logits_adv.step_size": 0.025}
    return {
        "ce": lambda: loss_config("ce"),
        SMALL: lambda: loss_config("trades"),
        LARGE: lambda: loss_config("trades", **wide),
    }[method]()


def robust_accuracy(net: nn.Module, x: Tensor, y: Tensor, radius: float) -> float:
    """Share of rows that no start of the attack turns."""
    attack = PGD(radius, step_size=radius / 10, steps=STEPS, noise=radius, attack="ce")
    right = torch.ones(len(y), dtype=torch.bool)
    for _ in range(STARTS):
        tensors = {"input": x, "model": net, "logits": net(x), "target": y}
        right &= attack(tensors).argmax(-1) == y
    return float(right.float().mean())


def run(method: str, data: Digits, seed: int, ran: Options) -> dict[str, float]:
    net = mlp(64, 128, 128, 10, seed=seed)
    objective = build_objective(config(method))
    fit(net, objective, data.x, data.y, epochs=ran.epochs, seed=seed, lr=ran.lr)
    x, y = data.x_test, data.y_test
    return {
        CLEAN: accuracy(net, x, y),
        **{f"PGD {radius:g}": robust_accuracy(net, x, y, radius) for radius in RADII},
    }


def main(argv: Sequence[str] | None = None) -> None:
    from report import lines

    ran = options("adversarial", seeds=5, epochs=40, argv=argv)
    data = digits()
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    for method in ("ce", SMALL, LARGE):
        scores[method] = {}
        for seed in range(ran.seeds):
            found = run(method, data, seed, ran)
            for (column, value), radius in zip(found.items(), (0.0, *RADII), strict=True):
                scores[method].setdefault(column, []).append(value)
                curves.append({"method": method, "radius of the attack": radius, "accuracy": value})
    claimed = [
        Claim(f"{method} ({PAPER}) {words} than ce", method, "ce", column, sign)
        for method in (SMALL, LARGE)
        for words, column, sign in (
            ("resists radius 0.031 better", "PGD 0.031", 1),
            ("resists radius 0.1 better", "PGD 0.1", 1),
            ("is less accurate on clean images", CLEAN, -1),
        )
    ]
    title = {
        "text": "Accuracy under attack",
        "subtitle": f"digits, pixels in [0, 1], L-infinity; mean of {ran.seeds} seeds",
    }
    chart = lines(curves, "radius of the attack", "accuracy", title, 0)
    write("adversarial", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
