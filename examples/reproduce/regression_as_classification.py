# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does regression by cross-entropy bear noisy and moving targets better than squared error?

python examples/reproduce/regression_as_classification.py

After "Stop Regressing" (arXiv 2403.03950) at toy scale: real targets for images of digits, made by
a fixed random network. Noisy: Gaussian noise on the training targets. Moving: the same net learns
one random function after another; a fresh net on the last one says what the others cost it. mse
has one output; two_hot and hl_gauss have the range [-1, 1], 51 bins and width of their YAMLs, and
predict the mean of the bins.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from study import (
    Claim,
    Digits,
    Options,
    Scores,
    digits,
    fit,
    loss_config,
    mlp,
    options,
    write,
)
from torch import Tensor, nn

from lightning_losses import build_objective

METHODS = ("mse", "two_hot", "hl_gauss")
SPREAD = 0.25  # standard deviation of the targets: with as much noise 99.5 % stay in [-1, 1]
NOISES = (0.0, 0.5, 1.0, 2.0)  # in units of SPREAD; at 2 the bins' range cuts 7 % of the targets
PHASES = 8
ORACLE = "noise 1, best epoch (oracle)"
LAST, FRESH, RATIO = f"function {PHASES}", "the same, fresh net", "carried over fresh"
PAPER = "2403.03950"


def values(x: Tensor, x_test: Tensor, seed: int) -> tuple[Tensor, Tensor]:
    """A random function of the images, with mean 0 and deviation SPREAD on the training set."""
    torch.manual_seed(seed + 10_000)  # away from the seeds that start the nets
    into, out = nn.Linear(64, 32), nn.Linear(32, 1)
    with torch.no_grad():
        into.weight.mul_(6)  # steeper than torch's start, or the function is nearly linear
        train, test = (out(torch.tanh(into(images))).squeeze(1) for images in (x, x_test))
    scale = SPREAD / train.std()
    return (train - train.mean()) * scale, (test - train.mean()) * scale


def named(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """One output is an estimate, more are bins."""
    out = net(x)
    if out.shape[1] > 1:
        return {"logits": out, "target": y}
    return {"estimate": out.squeeze(1), "reference": y}


def config(method: str) -> Any:
    """Squared error is torch's own module: a loss needs no file of ours."""
    if method == "mse":
        inputs = {"input": "estimate", "target": "reference"}
        return {"mse": {"_target_": "torch.nn.MSELoss", "reduction": "none", "inputs": inputs}}
    return loss_config(method)


class Learner:
    """A net, its objective and its optimizer, which go on from function to function."""

    def __init__(self, method: str, seed: int, ran: Options) -> None:
        self.objective = build_objective(config(method))
        self.net = mlp(64, 128, 128, 1 if method == "mse" else 51, seed=seed)
        self.seed, self.ran = seed, ran
        self.optimizer: torch.optim.Optimizer | None = None

    def fit(self, x: Tensor, y: Tensor, after_epoch: Callable[[int], None] | None = None) -> None:
        self.optimizer = fit(
            self.net,
            self.objective,
            x,
            y,
            epochs=self.ran.epochs,
            seed=self.seed,
            lr=self.ran.lr,
            named=named,
            after_epoch=after_epoch,
            optimizer=self.optimizer,
        )

    @torch.no_grad()
    def error(self, x: Tensor, y: Tensor) -> float:
        """Root mean squared error in units of SPREAD: predicting the mean scores about 1."""
        out = self.net(x)
        if out.shape[1] == 1:
            guess = out.squeeze(1)
        else:
            transform: Any = self.objective.named_terms()[0][1].target_transform
            guess = transform.mean(out)
        return float((guess - y).square().mean().sqrt()) / SPREAD


def noisy(method: str, noise: float, data: Digits, seed: int, ran: Options) -> list[float]:
    """Error on clean test targets after each epoch of training on noisy ones."""
    y, y_test = values(data.x, data.x_test, seed)
    drawn = torch.randn(len(y), generator=torch.Generator().manual_seed(seed))
    learner, errors = Learner(method, seed, ran), list[float]()
    learner.fit(
        data.x,
        y + noise * SPREAD * drawn,
        after_epoch=lambda _: errors.append(learner.error(data.x_test, y_test)),
    )
    return errors


def moving(method: str, data: Digits, seed: int, ran: Options) -> tuple[list[float], float]:
    """Training error after each function; that of a fresh net on the last function alone."""
    carried, fresh, errors = Learner(method, seed, ran), Learner(method, seed, ran), list[float]()
    for phase in range(PHASES):
        y, _ = values(data.x, data.x_test, seed + 1000 * phase)
        carried.fit(data.x, y)
        errors.append(carried.error(data.x, y))
    fresh.fit(data.x, y)
    return errors, fresh.error(data.x, y)


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("regression_as_classification", seeds=5, epochs=40, argv=argv)
    data = digits()
    noises = {f"noise {noise:g}": noise for noise in NOISES}
    columns = (*noises, ORACLE, LAST, FRESH, RATIO)
    scores: Scores = {method: {column: [] for column in columns} for method in METHODS}
    by_noise: list[dict[str, Any]] = []
    by_phase: list[dict[str, Any]] = []
    for method in METHODS:
        found = scores[method]
        for seed in range(ran.seeds):
            for column, noise in noises.items():
                errors = noisy(method, noise, data, seed, ran)
                found[column].append(errors[-1])
                if noise == 1:
                    found[ORACLE].append(min(errors))
                by_noise.append({"method": method, "noise": noise, "error": errors[-1]})
            errors, fresh = moving(method, data, seed, ran)
            found[LAST].append(errors[-1])
            found[FRESH].append(fresh)
            found[RATIO].append(errors[-1] / fresh)
            by_phase += [
                {"method": method, "function": phase, "training error": error}
                for phase, error in enumerate(errors, start=1)
            ]
    pairs = (("hl_gauss", "mse"), ("two_hot", "mse"), ("hl_gauss", "two_hot"))
    claimed = [
        Claim(f"{words}: {a} ({PAPER}) below {b}", a, b, column, -1)
        for words, column in (
            ("error under noise of 1 deviation", "noise 1"),
            ("the same with perfect early stopping", ORACLE),
            ("error under noise of 2 deviations", "noise 2"),
            ("error on the last of the moving targets", LAST),
            ("that error in units of a fresh net's", RATIO),
        )
        for a, b in pairs
    ]
    title = {
        "text": "Real targets for images of digits",
        "subtitle": f"errors and noise in standard deviations of the target; {ran.seeds} seeds",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    noisy_title = {"text": "Noisy: error on clean test targets", **small}
    moving_title = {"text": "Moving: training error after each function", **small}
    left = lines(by_noise, "noise", "error", noisy_title, 0, 330)
    right = lines(by_phase, "function", "training error", moving_title, 0, 330)
    chart = alt.hconcat(left, right, title=title, spacing=40)
    write("regression_as_classification", scores, claimed, chart, ran)


if __name__ == "__main__":
    main()
