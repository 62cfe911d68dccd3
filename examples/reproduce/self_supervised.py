# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do features learned from pairs of views help where there are few labels?

python examples/reproduce/self_supervised.py

Every training image is seen twice, each time moved by up to a pixel either way, brighter or darker
by up to a fifth, under noise; nt_xent or barlow_twins trains an encoder of 64 numbers through a
projector that is thrown away. No label is used. Then a linear layer (scikit-learn's logistic
regression, standardised inputs) reads the encoder, from 5 labels a class and from all. Beside it
stand the pixels, the net as it starts, and a net of the same size that learns by cross-entropy from
the same few labels, with the same views and number of steps. Both losses have the values of their
YAML; nothing is tuned.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from study import Claim, Digits, Options, Scores, accuracy, digits, fit, mlp, options, write
from torch import Tensor, nn

from lightning_losses import build_objective

ENCODED, PROJECTED, FEW, BATCH = 64, 32, 5, 256
PIXELS, START, SUPERVISED = "pixels", "the net as it starts", "ce on the labels"
PAPERS = {"nt_xent": "2002.05709", "barlow_twins": "2103.03230"}
METHODS = (PIXELS, START, SUPERVISED, *PAPERS)
FROM_FEW, FROM_ALL = f"from {FEW} labels a class", "from all labels"


def view(x: Tensor, draw: torch.Generator) -> Tensor:
    """Rows (B, 64) moved by up to a pixel, brighter or darker, under noise."""
    n = len(x)
    padded = nn.functional.pad(x.view(n, 8, 8), (1, 1, 1, 1))
    down, right = torch.randint(3, (2, n, 1), generator=draw)
    place = torch.arange(8)
    rows, columns = (down + place)[:, :, None], (right + place)[:, None, :]
    moved = padded[torch.arange(n)[:, None, None], rows, columns].flatten(1)
    light = 0.8 + 0.4 * torch.rand(n, 1, generator=draw)
    return moved * light + 0.1 * torch.randn(n, 64, generator=draw)


def encoder(seed: int) -> nn.Sequential:
    """Pixels to features; the same start for every method."""
    return mlp(64, 128, ENCODED, seed=seed)


def pretrained(loss: str, data: Digits, seed: int, ran: Options) -> nn.Module:
    """An encoder that has seen no label."""
    made = encoder(seed)
    net = nn.Sequential(made, nn.ReLU(), mlp(ENCODED, ENCODED, PROJECTED, seed=seed + 1000))
    draw = torch.Generator().manual_seed(seed)

    def named(net: nn.Module, x: Tensor, _: Tensor) -> dict[str, Any]:
        return {"features": net(view(x, draw)), "other_features": net(view(x, draw))}

    def stacked(net: nn.Module, x: Tensor, _: Tensor) -> dict[str, Any]:
        return {"features": torch.stack([net(view(x, draw)), net(view(x, draw))], 1)}

    fit(
        net, build_objective(loss), data.x, data.y, epochs=ran.epochs, seed=seed, lr=ran.lr,
        batch_size=BATCH, named=named if loss == "barlow_twins" else stacked,
    )  # fmt: skip
    return made


def supervised(data: Digits, rows: Tensor, seed: int, ran: Options) -> float:
    """Test accuracy of a net that learns from views of these rows by cross-entropy."""
    net = nn.Sequential(encoder(seed), nn.ReLU(), mlp(ENCODED, 10, seed=seed + 1000))
    draw = torch.Generator().manual_seed(seed)

    def named(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
        return {"logits": net(view(x, draw)), "target": y}

    # As many steps as the others, whose epochs are of all images.
    again = rows.repeat(-(-len(data.x) // len(rows)))[: len(data.x)]
    fit(
        net, build_objective("ce"), data.x[again], data.y[again], epochs=ran.epochs, seed=seed,
        lr=ran.lr, batch_size=BATCH, named=named,
    )  # fmt: skip
    return accuracy(net, data.x_test, data.y_test)


@torch.no_grad()
def probed(made: nn.Module, data: Digits, rows: Tensor) -> float:
    """Test accuracy of a linear layer on features, from the labels of these rows."""
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    train, test = made(data.x[rows]), made(data.x_test)
    probe = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    probe.fit(train.numpy(), data.y[rows].numpy())
    return float(probe.score(test.numpy(), data.y_test.numpy()))


def few_of(y: Tensor, seed: int) -> Tensor:
    """Rows with `FEW` images of each class."""
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(2000 + seed))
    return torch.cat([order[y[order] == digit][:FEW] for digit in range(10)])


def run(method: str, data: Digits, seed: int, ran: Options) -> dict[str, float]:
    few, every = few_of(data.y, seed), torch.arange(len(data.y))
    if method == SUPERVISED:
        found = [supervised(data, rows, seed, ran) for rows in (few, every)]
    else:
        made: nn.Module = nn.Identity() if method == PIXELS else encoder(seed)
        if method in PAPERS:
            made = pretrained(method, data, seed, ran)
        found = [probed(made, data, rows) for rows in (few, every)]
    return dict(zip((FROM_FEW, FROM_ALL), found, strict=True))


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("self_supervised", seeds=6, epochs=60, argv=argv)
    data = digits()
    scores: Scores = {method: {FROM_FEW: [], FROM_ALL: []} for method in METHODS}
    for method in METHODS:
        for seed in range(ran.seeds):
            for column, value in run(method, data, seed, ran).items():
                scores[method][column].append(value)
    claimed = [
        Claim(f"{loss} ({paper}) beats {other}", loss, other, FROM_FEW)
        for loss, paper in PAPERS.items()
        for other in (PIXELS, START, SUPERVISED)
    ]
    claimed += [
        Claim(f"{loss} is at most 0.02 below {SUPERVISED}", loss, SUPERVISED, FROM_ALL, 1, 0.02)
        for loss in PAPERS
    ]
    claimed.append(
        Claim("nt_xent and barlow_twins: the latter is better", "barlow_twins", "nt_xent", FROM_FEW)
    )
    title = {
        "text": "A linear layer on features that saw no label",
        "subtitle": f"digits, test accuracy; each of {ran.seeds} seeds a dot, the mean a bar",
    }
    chart = dots(scores, (FROM_FEW, FROM_ALL), title)
    write("self_supervised", scores, claimed, chart, ran, f"Adam at {{lr:g}}, batches of {BATCH}")


if __name__ == "__main__":
    main()
