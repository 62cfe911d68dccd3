# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What every study shares: data, a plain training loop on an `Objective`, tables and pictures.

A study fills `Scores` (method -> column -> one number a seed), and `write` turns them into
results/<study>.md and .png. Words about the numbers are made by `claims`, never typed.
"""

from __future__ import annotations

import argparse
import platform
from collections.abc import Callable, Sequence
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from statistics import fmean, stdev
from typing import Any, NamedTuple

import torch
from omegaconf import DictConfig, OmegaConf
from torch import Tensor, nn

from lightning_losses import Objective
from lightning_losses.config.build import compose_losses

Scores = dict[str, dict[str, list[float]]]
Named = Callable[[nn.Module, Tensor, Tensor], dict[str, Any]]
PACKAGES = ("lightning-losses", "torch", "scikit-learn")


class Options(NamedTuple):
    """What the command line may change."""

    seeds: int
    epochs: int
    lr: float
    out: Path
    command: str


class Claim(NamedTuple):
    """`method` has more (sign 1) or less (sign -1) of `column` than `baseline`, or than a number.

    With a `margin` it has more than the baseline less the margin: "at most so much worse".
    """

    words: str
    method: str
    baseline: str | float
    column: str
    sign: int = 1
    margin: float = 0.0
    baseline_column: str | None = None
    """Another column of the baseline, if it is not to be compared in `column`."""


class Digits(NamedTuple):
    """Scikit-learn's handwritten digits: x (N, 64) float32 in [0, 1], y (N,) int64."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


def options(
    study: str, seeds: int, epochs: int, argv: Sequence[str] | None = None, lr: float = 1e-3
) -> Options:
    """The command line of a study, with its own default numbers of seeds and epochs."""
    parser = argparse.ArgumentParser(prog=f"python examples/reproduce/{study}.py")
    parser.add_argument("--seeds", type=int, default=seeds)
    parser.add_argument("--epochs", type=int, default=epochs)
    parser.add_argument("--lr", type=float, default=lr, help="the same for every method")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results")
    given = parser.parse_args(argv)
    # Nets this small gain nothing from threads, and sums in one order repeat on any machine.
    torch.set_num_threads(1)
    changed = [
        f" --{name} {getattr(given, name)}"
        for name in ("seeds", "epochs", "lr")
        if getattr(given, name) != parser.get_default(name)
    ]
    command = parser.prog + "".join(changed)
    return Options(given.seeds, given.epochs, given.lr, given.out, command)


def digits() -> Digits:
    """One fixed split for every study and seed: 1257 training and 540 test images, stratified."""
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    images, labels = load_digits(return_X_y=True)
    x, y = torch.tensor(images / 16, dtype=torch.float32), torch.tensor(labels).long()
    train, test = train_test_split(range(len(y)), test_size=0.3, stratify=labels, random_state=0)
    return Digits(x[train], y[train], x[test], y[test])


def mlp(*widths: int, seed: int) -> nn.Sequential:
    """Linear layers with ReLU between them; the same seed is the same start for every method."""
    torch.manual_seed(seed)
    layers: list[nn.Module] = []
    for wide, narrow in pairwise(widths):
        layers += [nn.Linear(wide, narrow), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


def loss_config(key: str, **changes: Any) -> DictConfig:
    """What `conf/loss/<key>.yaml` composes to, for `build_objective`.

    Changes are arguments by name; of a part of the loss by dots, ``{"provider.x.epsilon": 0.1}``.
    """
    config = compose_losses([key])
    for name, value in changes.items():
        OmegaConf.update(config[key], name, value)
    return config


def logits_and_target(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """The named tensors of a classification step; input and model are for attacks."""
    return {"logits": net(x), "target": y, "input": x, "model": net}


def fit(
    net: nn.Module,
    objective: Objective,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    seed: int,
    lr: float = 1e-3,
    batch_size: int = 128,
    named: Named = logits_and_target,
    after_epoch: Callable[[int], None] | None = None,
    optimizer: torch.optim.Optimizer | None = None,
) -> torch.optim.Optimizer:
    """Train by Adam on batches whose order depends on the seed alone; returns the optimizer."""
    parameters = [*net.parameters(), *objective.parameters()]
    optimizer = optimizer or torch.optim.Adam(parameters, lr=lr)
    order = torch.Generator().manual_seed(seed)
    step = 0
    for epoch in range(epochs):
        net.train()
        objective.train()
        for rows in torch.split(torch.randperm(len(x), generator=order), batch_size):
            objective.set_step(step)  # losses with draws or memory of their own follow the step
            record = objective(**named(net, x[rows], y[rows]), sample_index=rows)
            optimizer.zero_grad()
            record.total.backward()
            optimizer.step()
            step += 1
        net.eval()
        if after_epoch is not None:
            after_epoch(epoch + 1)
    return optimizer


@torch.no_grad()
def accuracy(net: nn.Module, x: Tensor, y: Tensor) -> float:
    """Share of rows whose largest logit is the target's."""
    return float((net(x).argmax(-1) == y).float().mean())


def number(value: float) -> str:
    """Three decimals, fewer for large numbers."""
    return f"{value:.3f}" if abs(value) < 10 else f"{value:.1f}"


def mean_sd(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds; a single value alone."""
    spread = f" ± {number(stdev(values))}" if len(values) > 1 else ""
    return number(fmean(values)) + spread


def markdown(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table, its first column left and the others right."""
    rule = ["---"] + ["---:"] * (len(head) - 1)
    return "\n".join("| " + " | ".join(row) + " |" for row in (head, rule, *rows))


def table(scores: Scores) -> str:
    """One row a method, one column a score."""
    columns = list(next(iter(scores.values())))
    rows = [[name, *(mean_sd(found[c]) for c in columns)] for name, found in scores.items()]
    return markdown(["", *columns], rows)


def write(
    name: str,
    scores: Scores,
    claimed: Sequence[Claim],
    chart: Any,
    ran: Options,
    setting: str = "Adam at {lr:g}, batches of 128",
    more: Scores | None = None,
) -> None:
    """Write results/<name>.md and .png, and print the former; `setting` may use {lr:g}.

    `more` is a second table, of which claims may tell as well.
    """
    from report import claims, figure

    ran.out.mkdir(parents=True, exist_ok=True)
    figure(chart, ran.out / f"{name}.png")
    versions = ", ".join(f"{package} {version(package)}" for package in PACKAGES)
    # No time of day and no duration: the same command writes the same file again.
    how = (
        f"Mean ± standard deviation over seeds 0 to {ran.seeds - 1}, {ran.epochs} epochs, "
        f"{setting.format(lr=ran.lr)}. Printed by `{ran.command}` (Python "
        f"{platform.python_version()}, {versions}, one CPU thread)."
    )
    tables = "\n\n".join(table(each) for each in (scores, more) if each)
    text = f"{tables}\n\n{how}\n\n{claims(claimed, scores | (more or {}))}\n"
    (ran.out / f"{name}.md").write_text(text, encoding="utf-8")
    print(text)
