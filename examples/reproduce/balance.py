# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do weights that find themselves do as well as the best of a sweep of fixed ones?

python examples/reproduce/balance.py

An image holds two digits, one moved up and left and one down and right so that they overlap, as in
MultiMNIST (1810.04650). A net of one trunk of 8 numbers says which digit is where, by two
cross-entropies that compete for these numbers, and how much ink there is, by a squared error in raw
units of pixels, of which the first is near 1900 where a cross-entropy is near 2.3. The step passes
`trunk`, so that `GradNorm` and the aggregators look at gradients where the three meet.

Scores of a net: accuracy on either digit, and the share of the ink's variance that it explains; the
mean of the three and the worst sum them up. Fixed weights of the ink fall by tens from 1; which one
is best is seen in the scores of test images, which nobody has in earnest. Nets for one term alone
say what could be had. Every rule has the values of its YAML, and the learning rate is the same.
"""

from __future__ import annotations

import logging
import warnings
from collections.abc import Sequence
from statistics import fmean
from typing import Any

import lightning.pytorch as L
import torch
from networks import Logged
from omegaconf import OmegaConf
from study import Claim, Options, Scores, digits, mlp, options, write
from torch import Tensor, nn
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import (
    DWA,
    Aggregator,
    GradNorm,
    ReLoBRaLo,
    TermBalanceMonitor,
    TermBalancer,
    Uncertainty,
)

SIDE, TRUNK, TRAIN, TEST = 10, 8, 2048, 1000
TERMS = ("first", "second", "ink")
FIXED = ("1", "0.1", "0.01", "0.001", "0.0001")
RULES: dict[str, Any] = {
    "uncertainty": Uncertainty,
    "gradnorm": GradNorm,
    "dwa": DWA,
    "relobralo": ReLoBRaLo,
    "UPGrad": lambda: Aggregator("UPGrad"),
    "PCGrad": lambda: Aggregator("PCGrad"),
    "MGDA": lambda: Aggregator("MGDA"),
    "IMTLG": lambda: Aggregator("IMTLG"),
}
PAPERS = {
    "uncertainty": "1705.07115",
    "gradnorm": "1711.02257",
    "dwa": "1803.10704",
    "relobralo": "2110.09813",
    "UPGrad": "2406.16232",
    "PCGrad": "2001.06782",
    "MGDA": "1810.04650",
    "IMTLG": "Liu et al. 2021",
}
TIMES, ALONE = "ink times ", "a net for each"
METHODS = (*(TIMES + weight for weight in FIXED), *RULES)
FIRST, SECOND, INK = "first digit", "second digit", "ink, R2"
MEAN, WORST, COSINE = "mean", "worst", "cosine of the digits"
COLUMNS = (FIRST, SECOND, INK, MEAN, WORST, COSINE)


def pairs(x: Tensor, y: Tensor, count: int, seed: int) -> tuple[Tensor, ...]:
    """Images (count, 100) of two digits, both labels, and ink less 540, about its mean."""
    draw = torch.Generator().manual_seed(seed)
    a, b = torch.randint(len(x), (2, count), generator=draw)
    image = torch.zeros(count, SIDE, SIDE)
    image[:, :8, :8] = x[a].view(-1, 8, 8)
    image[:, 2:, 2:] = torch.maximum(image[:, 2:, 2:], x[b].view(-1, 8, 8))
    ink = 16 * image.sum((1, 2)) - 540
    return image.flatten(1), y[a], y[b], ink


class Net(LossMixin, L.LightningModule):
    """A trunk and three heads, and the terms that are asked for."""

    def __init__(self, terms: dict[str, float], lr: float, seed: int) -> None:
        super().__init__()
        self.trunk = mlp(SIDE * SIDE, 128, TRUNK, seed=seed)
        self.first, self.second = nn.Linear(TRUNK, 10), nn.Linear(TRUNK, 10)
        self.ink, self.lr, self.terms = nn.Linear(TRUNK, 1), lr, tuple(terms)
        self.loss = build_objective(objective(terms))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        h = self.trunk(x)
        heads = {name: getattr(self, name)(h) for name in TERMS}
        return {"trunk": h, **heads}

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, a, b, ink = batch
        out = self(x)
        named = {"trunk": out["trunk"]}
        if "ink" in self.terms:
            named |= {"estimate": out["ink"][:, 0], "reference": ink}
        for name, label in (("first", a), ("second", b)):
            if name in self.terms:
                named |= {f"{name}_logits": out[name], f"{name}_target": label}
        return self.compute_loss(**named)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


def objective(weights: dict[str, float]) -> Any:
    """Two cross-entropies on logits of their own, and a squared error."""
    terms: dict[str, Any] = {
        name: {
            "_target_": "torch.nn.CrossEntropyLoss",
            "reduction": "none",
            "inputs": {"input": f"{name}_logits", "target": f"{name}_target"},
        }
        for name in TERMS[:2]
    }
    terms["ink"] = {
        "_target_": "lightning_losses.losses.ElementwiseError",
        "distance": "squared",
    }
    return OmegaConf.create({name: terms[name] | {"weight": w} for name, w in weights.items()})


@torch.no_grad()
def judge(net: Net, test: tuple[Tensor, ...]) -> dict[str, float]:
    """Accuracy on either digit, and the share of the variance of the ink that is explained."""
    x, a, b, ink = test
    out = net(x)
    return {
        FIRST: float((out["first"].argmax(1) == a).float().mean()),
        SECOND: float((out["second"].argmax(1) == b).float().mean()),
        INK: 1 - float((out["ink"][:, 0] - ink).square().mean() / ink.var(correction=0)),
    }


def run(weights: dict[str, float], rule: Any, seed: int, ran: Options) -> dict[str, float]:
    """What a net scores that was trained on these terms, under a rule or None."""
    data = digits()
    net = Net(weights, ran.lr, seed)
    rows = TensorDataset(*pairs(data.x, data.y, TRAIN, seed))
    order = torch.Generator().manual_seed(seed)
    sampler = BatchSampler(RandomSampler(rows, generator=order), 128, drop_last=False)
    cosine = Logged("term_balance/cosine/first:second")
    watch = [] if len(weights) == 1 else [TermBalanceMonitor(every_n_steps=16), cosine]
    balancer = [] if rule is None else [TermBalancer(rule)]
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # about workers and log folders
        trainer = L.Trainer(
            max_epochs=ran.epochs,
            accelerator="cpu",
            callbacks=[*balancer, *watch],
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(net, DataLoader(rows, batch_size=None, sampler=sampler))
    net.eval()
    found = judge(net, pairs(data.x_test, data.y_test, TEST, 10_000 + seed))
    cosines = [value for _, value in next(iter(cosine.values.values()))]
    return found | ({COSINE: fmean(cosines)} if cosines else {})


def summed_up(found: dict[str, float]) -> dict[str, float]:
    """The same with the mean of the three scores, and the worst."""
    three = [found[c] for c in (FIRST, SECOND, INK)]
    return found | {MEAN: fmean(three), WORST: min(three)}


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("balance", seeds=4, epochs=16, argv=argv, lr=5e-3)
    scores: Scores = {m: {c: [] for c in COLUMNS} for m in METHODS}
    alone: Scores = {ALONE: {c: [] for c in COLUMNS[:-1]}}
    for seed in range(ran.seeds):
        for method in METHODS:
            fixed = float(method.removeprefix(TIMES)) if method.startswith(TIMES) else 1.0
            weights = {"first": 1.0, "second": 1.0, "ink": fixed}
            rule = RULES[method]() if method in RULES else None
            for column, value in summed_up(run(weights, rule, seed, ran)).items():
                scores[method][column].append(value)
        each = [run({term: 1.0}, None, seed, ran) for term in TERMS]
        best = {c: one[c] for c, one in zip((FIRST, SECOND, INK), each, strict=True)}
        for column, value in summed_up(best).items():
            alone[ALONE][column].append(value)
    equal, *_ = swept = [m for m in METHODS if m.startswith(TIMES)]
    rules = [m for m in METHODS if m in RULES]
    best_mean = max(swept, key=lambda m: fmean(scores[m][MEAN]))
    best_worst = max(swept, key=lambda m: fmean(scores[m][WORST]))
    claimed = [Claim("at the best weight the two digits pull apart", best_mean, 0, COSINE, -1)]
    claimed += [
        Claim(f"{m} ({PAPERS[m]}) does better than equal weights", m, equal, MEAN) for m in rules
    ]
    claimed += [
        Claim(f"{m} is at most 0.02 below the best of the sweep", m, best_mean, MEAN, 1, 0.02)
        for m in rules
    ]
    claimed += [
        Claim(f"{m} serves the worst score better than any of the sweep", m, best_worst, WORST)
        for m in rules
    ]
    title = {
        "text": "Two digits that compete for 8 numbers, and their ink in raw units",
        "subtitle": f"each of {ran.seeds} seeds a dot, the mean a bar; higher is better",
    }
    chart = dots(scores, (FIRST, SECOND, INK, WORST), title, width=170)
    setting = "Adam at {lr:g}, batches of 128, under Lightning's Trainer"
    write("balance", scores, claimed, chart, ran, setting, more=alone)


if __name__ == "__main__":
    main()
