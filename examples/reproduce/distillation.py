# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a small student gain from a teacher, and from which loss most?

python examples/reproduce/distillation.py

A teacher of 85,000 weights and a student of 1,210 on handwritten digits; the teacher is trained on
all training images, the student on the same ones, or on 128 of them for as many steps, where the
teacher knows what the student cannot. Every loss has the arguments of its YAML; cross-entropy
stands beside those whose papers have it there, `kd` and `ce` with 0.9 and 0.1 (the weights of the
benchmark that most papers report), all others with 1 and 1. `ce + kd, hidden` passes hidden states
and heads of both instead of logits: the same numbers by another way.
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
    logits_and_target,
    loss_config,
    mlp,
    options,
    write,
)
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.providers import FrozenTeacher

ACCURACY, AGREES, FEW = "accuracy", "agrees with the teacher", "accuracy, 128 images"
TEACHER, HIDDEN, IMAGES = "the teacher", "ce + kd, hidden", 128
#: The terms of each method, and their weights.
METHODS: dict[str, dict[str, float]] = {
    "ce": {"ce": 1.0},
    "ce + kd": {"ce": 0.1, "kd": 0.9},
    HIDDEN: {"ce": 0.1, "kd": 0.9},
    "ce + dkd": {"ce": 1.0, "dkd": 1.0},
    "ce + dist": {"ce": 1.0, "dist": 1.0},
    "pld": {"pld": 1.0},
    "ce + dual_head_kd": {"ce": 1.0, "dual_head_kd": 1.0},
}
PAPERS = {
    "ce + kd": "1503.02531",
    "ce + dkd": "2203.08679",
    "ce + dist": "2205.10536",
    "pld": "2506.12542",
    "ce + dual_head_kd": "2411.08937",
}


class Student(nn.Module):
    """One hidden layer; the second head is there for every method, and learns with one."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        net = mlp(64, 16, 10, seed=seed)
        self.body, self.head = net[:2], net[2]
        self.aux = nn.Linear(16, 10)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x))
        return logits


def of_logits(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """Logits of both heads; the teacher's come from the provider, which reads the input."""
    hidden = net.body(x)  # type: ignore[operator]
    return {
        "logits": net.head(hidden),  # type: ignore[operator]
        "aux_logits": net.aux(hidden),  # type: ignore[operator]
        "target": y,
        "input": x,
    }


def of_hidden(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """No logits, of either."""
    hidden = net.body(x)  # type: ignore[operator]
    return {"hidden": hidden, "head": net.head, "target": y, "input": x}


def objective(method: str, teacher: nn.Sequential) -> Objective:
    """The terms of a method, and the teacher that they read."""
    terms = METHODS[method]
    loss = {key: loss_config(key, weight=weight)[key] for key, weight in terms.items()}
    provider = FrozenTeacher(teacher)
    if method == HIDDEN:
        provider = FrozenTeacher(teacher[:-1], head=teacher[-1])
    return build_objective(loss, providers={"teacher_logits": provider})


def run(method: str, data: Digits, teacher: nn.Sequential, seed: int, ran: Options) -> list[float]:
    """Accuracy of a student after every epoch, at last agreement, then accuracy from few images."""
    named = of_hidden if method == HIDDEN else of_logits
    net, curve = Student(seed), []
    with torch.no_grad():
        said = teacher(data.x_test).argmax(1)

    def after_epoch(_: int) -> None:
        curve.append(accuracy(net, data.x_test, data.y_test))

    settings: dict[str, Any] = {"seed": seed, "lr": ran.lr, "named": named}
    fit(
        net,
        objective(method, teacher),
        data.x,
        data.y,
        epochs=ran.epochs,
        after_epoch=after_epoch,
        **settings,
    )
    agrees = accuracy(net, data.x_test, said)
    some = torch.randperm(len(data.x), generator=torch.Generator().manual_seed(seed))[:IMAGES]
    # One batch is one epoch here: as many steps as of all images.
    epochs = ran.epochs * -(-len(data.x) // IMAGES)
    small = Student(seed)
    fit(small, objective(method, teacher), data.x[some], data.y[some], epochs=epochs, **settings)
    return [*curve, agrees, accuracy(small, data.x_test, data.y_test)]


def main(argv: Sequence[str] | None = None) -> None:
    from report import lines

    ran = options("distillation", seeds=5, epochs=30, argv=argv, lr=1e-2)
    data = digits()
    columns = (ACCURACY, AGREES, FEW)
    scores: Scores = {name: {c: [] for c in columns} for name in (TEACHER, *METHODS)}
    curves = []
    for seed in range(ran.seeds):
        teacher = mlp(64, 256, 256, 10, seed=1000 + seed)
        plain = build_objective("ce")
        fit(teacher, plain, data.x, data.y, epochs=ran.epochs, seed=seed, named=logits_and_target)
        right = accuracy(teacher, data.x_test, data.y_test)
        for column, value in zip(columns, (right, 1.0, right), strict=True):
            scores[TEACHER][column].append(value)
        for method in METHODS:
            *curve, agrees, few = run(method, data, teacher, seed, ran)
            for column, value in zip(columns, (curve[-1], agrees, few), strict=True):
                scores[method][column].append(value)
            curves += [
                {"method": method, "epoch": epoch, ACCURACY: value}
                for epoch, value in enumerate(curve, start=1)
            ]
    claimed = []
    for method, paper in PAPERS.items():
        claimed += [
            Claim(f"{method} ({paper}) ends above ce", method, "ce", ACCURACY),
            Claim(f"{method} ends above ce from 128 images", method, "ce", FEW),
            Claim(f"{method} agrees with the teacher more than ce", method, "ce", AGREES),
        ]
    for method in (m for m in PAPERS if m != "ce + kd"):
        claimed += [
            Claim(f"{method} ends above ce + kd", method, "ce + kd", ACCURACY),
            Claim(f"{method} ends above ce + kd from 128 images", method, "ce + kd", FEW),
        ]
    same = f"{HIDDEN} ends where ce + kd does, 0.002 below at most"
    claimed.append(Claim(same, HIDDEN, "ce + kd", ACCURACY, margin=0.002))
    title = {
        "text": "A student of 16 hidden units, with and without a teacher",
        "subtitle": f"digits, all training images, mean of {ran.seeds} seeds",
    }
    chart = lines(curves, "epoch", ACCURACY, title, low=0.5)
    write("distillation", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
