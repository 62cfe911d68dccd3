# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do robust losses keep a network from memorising wrong labels?

python examples/reproduce/label_noise.py

40 % of the training labels of the digits are replaced by another class, drawn uniformly. Every
loss has the values of its YAML; net, start, noise, batches and optimizer are the same for all.
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
from torch import Tensor

from lightning_losses import build_objective

LOSSES = ("ce", "gce", "symmetric_ce", "ldr_kl", "aldr_kl", "bootstrapping", "ensloss")
NOISE = 0.4
PAPERS = {
    "gce": "1805.07836",
    "symmetric_ce": "1908.06112",
    "ldr_kl": "2112.14869",
    "aldr_kl": "2112.14869",
    "bootstrapping": "1412.6596",
    "ensloss": "2409.00908, which claims less overfitting, not noise",
}
END, BEST, MEMORISED = "end", "best epoch (oracle)", "wrong labels learned"


def wrong_labels(y: Tensor, share: float, seed: int, classes: int = 10) -> Tensor:
    """The labels with exactly this share of them, at random, moved to another class."""
    draw = torch.Generator().manual_seed(seed)
    rows = torch.randperm(len(y), generator=draw)[: round(share * len(y))]
    y = y.clone()
    y[rows] = (y[rows] + torch.randint(1, classes, (len(rows),), generator=draw)) % classes
    return y


def run(loss: Any, data: Digits, seed: int, ran: Options) -> tuple[list[float], float]:
    """Clean test accuracy after each epoch; share of wrong labels that the net ends up giving."""
    noisy = wrong_labels(data.y, NOISE, seed)
    net = mlp(64, 128, 128, 10, seed=seed)
    clean: list[float] = []
    fit(
        net,
        build_objective(loss),
        data.x,
        noisy,
        epochs=ran.epochs,
        seed=seed,
        lr=ran.lr,
        after_epoch=lambda _: clean.append(accuracy(net, data.x_test, data.y_test)),
    )
    wrong = noisy != data.y
    return clean, accuracy(net, data.x[wrong], noisy[wrong])


def main(argv: Sequence[str] | None = None) -> None:
    from report import lines

    ran = options("label_noise", seeds=5, epochs=120, argv=argv)
    data = digits()
    scores: Scores = {}
    curves = []
    for name in LOSSES:
        loss = loss_config(name)
        found = scores[name] = {END: [], BEST: [], MEMORISED: []}
        for seed in range(ran.seeds):
            clean, learned = run(loss, data, seed, ran)
            found[END].append(clean[-1])
            found[BEST].append(max(clean))
            found[MEMORISED].append(learned)
            curves += [
                {"method": name, "epoch": epoch, "clean test accuracy": value}
                for epoch, value in enumerate(clean, start=1)
            ]
    claimed = [
        Claim(f"{name} ({PAPERS[name]}) ends above ce", name, "ce", END) for name in LOSSES[1:]
    ]
    title = {
        "text": "40 % wrong labels: clean accuracy while training",
        "subtitle": f"digits, mean of {ran.seeds} seeds",
    }
    chart = lines(curves, "epoch", "clean test accuracy", title, low=0.5)
    write("label_noise", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
