# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Are the weights of a harmonic head class centres one can look at, and do they stop growing?

python examples/reproduce/harmonic.py

Baek et al., arXiv 2502.01628: with class scores from distances to class centres, cross-entropy is
reached at finite centres that look like the class. Linear: the head reads the pixels, so that its
weights are images. Mlp: it reads 128 features. Both heads have no bias and no weight decay.
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
    mlp,
    options,
    write,
)
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_losses import build_objective
from lightning_losses.heads import HarmonicHead

CLASSES, FEW, BATCH = 10, 5, 128
METHODS = ("ce, linear", "harmonic, linear", "ce, mlp", "harmonic, mlp")
ACCURACY, SCARCE = "test accuracy", f"from {FEW} images a class"
LIKENESS, NORM, GROWTH = "likeness to class means", "weight norm", "norm, end over half"


def network(method: str, seed: int) -> nn.Sequential:
    """A body, and a head with one row of weights a class."""
    head, body = method.split(", ")
    torch.manual_seed(seed)
    width = 64 if body == "linear" else 128
    made = nn.Identity() if body == "linear" else mlp(64, 128, width, seed=seed).append(nn.ReLU())
    last = (
        HarmonicHead(width, CLASSES)
        if head == "harmonic"
        else nn.Linear(width, CLASSES, bias=False)
    )
    return nn.Sequential(made, last)


def class_means(features: Tensor, y: Tensor) -> Tensor:
    """(C, D)."""
    return torch.stack([features[y == k].mean(0) for k in range(CLASSES)])


def likeness(weight: Tensor, means: Tensor) -> float:
    """Mean over classes of the cosine between weights and mean features (C, D), both centred.

    Centred because a vector added to every row of softmax weights changes nothing.
    """
    return float(F.cosine_similarity(weight - weight.mean(0), means - means.mean(0)).mean())


def few_rows(y: Tensor, seed: int) -> Tensor:
    """Random rows, the same number of every class."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    return torch.cat([order[y[order] == k][:FEW] for k in range(CLASSES)])


def run(method: str, data: Digits, seed: int, ran: Options) -> tuple[dict[str, float], Any]:
    """Scores; the head's weights and their norm after each epoch."""
    objective = build_objective("ce")
    net = network(method, seed)
    weight: Tensor = net[1].weight  # type: ignore[assignment]
    norms: list[float] = []

    def note(_: int) -> None:
        norms.append(float(weight.detach().norm()))

    common: dict[str, Any] = {"epochs": ran.epochs, "seed": seed, "lr": ran.lr, "batch_size": BATCH}
    fit(net, objective, data.x, data.y, after_epoch=note, **common)
    scarce, rows = network(method, seed), few_rows(data.y, seed)
    # As many steps as with all images, where an epoch of these is one step.
    common["epochs"] *= -(-len(data.x) // BATCH)
    fit(scarce, objective, data.x[rows], data.y[rows], **common)
    with torch.no_grad():
        means = class_means(net[0](data.x), data.y)
    found = {
        ACCURACY: accuracy(net, data.x_test, data.y_test),
        SCARCE: accuracy(scarce, data.x_test, data.y_test),
        LIKENESS: likeness(weight.detach(), means),
        NORM: norms[-1],
        GROWTH: norms[-1] / norms[max(len(norms) // 2 - 1, 0)],
    }
    return found, (weight.detach(), norms)


def images(rows: dict[str, Tensor]) -> Any:
    """Ten 8 x 8 images a row, each row on a grey scale of its own."""
    import altair as alt

    strips = []
    for name, weights in rows.items():
        low, high = float(weights.min()), float(weights.max())
        data = [
            {"x": k * 9 + i % 8, "y": i // 8, "value": (value - low) / (high - low)}
            for k, row in enumerate(weights.tolist())
            for i, value in enumerate(row)
        ]
        strips.append(
            alt.Chart(alt.InlineData(values=data))
            .mark_rect()
            .encode(
                x=alt.X("x:O", axis=None, scale=alt.Scale(domain=list(range(CLASSES * 9 - 1)))),
                y=alt.Y("y:O", axis=None),
                color=alt.Color("value:Q", scale=alt.Scale(scheme="greys"), legend=None),
                # Without an edge of the same colour, white seams show between the pixels.
                stroke=alt.Stroke("value:Q", scale=alt.Scale(scheme="greys"), legend=None),
            )
            .properties(
                title=alt.Title(name, fontSize=13, fontWeight="normal", offset=4),
                width=712,
                height=64,
            )
        )
    return alt.vconcat(*strips, spacing=10)


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("harmonic", seeds=5, epochs=200, argv=argv)
    data = digits()
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    pictures = {"mean image of each class": class_means(data.x, data.y)}
    for method in METHODS:
        scores[method] = {}
        for seed in range(ran.seeds):
            found, (weight, norms) = run(method, data, seed, ran)
            for column, value in found.items():
                scores[method].setdefault(column, []).append(value)
            curves += [
                {"method": method, "epoch": epoch, "norm of the head's weights": norm}
                for epoch, norm in enumerate(norms, start=1)
            ]
            if seed == 0 and method.endswith("linear"):
                pictures[f"weights of {method} (seed 0)"] = weight
    claimed = [
        Claim(f"{body}: harmonic {words} (2502.01628)", f"harmonic, {body}", f"ce, {body}", c, sign)
        for words, c, sign in (
            ("weights look more like class means than ce's", LIKENESS, 1),
            ("weights grow less than ce's in the second half", GROWTH, -1),
            ("learns more than ce from few images", SCARCE, 1),
        )
        for body in ("linear", "mlp")
    ]
    title = {"text": "Norm of the weights while training", "subtitle": f"mean of {ran.seeds} seeds"}
    norm = lines(curves, "epoch", "norm of the head's weights", title, 0, width=556, height=240)
    both = alt.vconcat(images(pictures), norm, spacing=30)
    chart = both.resolve_scale(color="independent", stroke="independent")
    write("harmonic", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
