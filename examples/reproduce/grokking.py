# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does cross-entropy stop learning in float32 before a net has understood modular addition?

python examples/reproduce/grokking.py

Prieto et al., arXiv 2501.04697: without weight decay, a net that knows all training rows lowers the
loss by growing its logits until softmax is exactly 1 in float32 and no gradient is left ("softmax
collapse"), so that it never comes to generalise; StableMax and gradients orthogonal to the weights
(`PerpGrad`) let it. Here a + b mod 31, 60 % of the pairs, one hidden layer of 128 squares, all rows
in each of Adam's steps, so that an epoch is a step. Settings, the same for all methods, were
searched for a small case where ce loses its gradients and stablemax learns in 2000 steps: see
README.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from study import Claim, Options, Scores, accuracy, options, write
from torch import Tensor, nn

from lightning_losses import build_objective
from lightning_losses.callbacks.controllers.perp_grad import perpendicular_gradient

MODULUS, SHARE, WIDTH, EVERY = 31, 0.6, 128, 20
WIDE = "ce, float64"
METHODS = ("ce", WIDE, "stablemax", "perp_grad")
TRAIN, TEST = "training accuracy", "test accuracy"
KNOWN, GROKKED = "step: training > 99 %", "step: test > 50 %"
DEAD, LOGIT, PAPER = "rows with loss 0", "largest logit", "2501.04697"


class Pairs(NamedTuple):
    """Two numbers (N, 2) int64, the second counted from the modulus on, and their sum (N,)."""

    x: Tensor
    y: Tensor
    x_test: Tensor
    y_test: Tensor


class Squares(nn.Module):
    """A vector for each number in each place; the sum of two, squared, is read out linearly."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.into = nn.EmbeddingBag(2 * MODULUS, WIDTH, mode="sum")
        nn.init.normal_(self.into.weight, std=0.1)
        self.out = nn.Linear(WIDTH, MODULUS, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.out(self.into(x).square())
        return logits


def pairs(seed: int) -> Pairs:
    """All pairs; the seed draws those to train on."""
    a, b = torch.cartesian_prod(torch.arange(MODULUS), torch.arange(MODULUS)).unbind(1)
    x, y = torch.stack([a, b + MODULUS], 1), (a + b) % MODULUS
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(seed))
    train, test = order[: int(SHARE * len(y))], order[int(SHARE * len(y)) :]
    return Pairs(x[train], y[train], x[test], y[test])


def run(method: str, seed: int, ran: Options) -> list[dict[str, float]]:
    """Measurements every 20 steps."""
    data, net = pairs(seed), Squares(seed)
    if method == WIDE:
        net = net.double()
    key = "stablemax" if method == "stablemax" else "ce"
    objective = build_objective(key, reduction="none")
    adam = torch.optim.Adam(net.parameters(), lr=ran.lr)
    history = []
    for step in range(ran.epochs + 1):
        logits = net(data.x)
        losses = objective(logits, data.y).total
        if step % EVERY == 0 or step == ran.epochs:
            history.append(measured(net, data, logits, losses) | {"step": step})
        adam.zero_grad()
        losses.mean().backward()
        if method == "perp_grad":
            for weight in net.parameters():
                assert weight.grad is not None
                weight.grad, _ = perpendicular_gradient(weight, weight.grad)
        adam.step()
    return history


@torch.no_grad()
def measured(net: nn.Module, data: Pairs, logits: Tensor, losses: Tensor) -> dict[str, float]:
    """Accuracies; the share of training rows whose loss is exactly 0; the largest logit."""
    return {
        TRAIN: accuracy(net, data.x, data.y),
        TEST: accuracy(net, data.x_test, data.y_test),
        DEAD: float((losses == 0).float().mean()),
        LOGIT: float(logits.abs().max()),
    }


def first(history: list[dict[str, float]], column: str, above: float) -> float:
    """The first measured step with more; the last step of all if there is none."""
    return next((now["step"] for now in history if now[column] > above), history[-1]["step"])


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("grokking", seeds=5, epochs=2000, argv=argv, lr=3e-2)
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    for method in METHODS:
        found = scores[method] = {c: [] for c in (TRAIN, KNOWN, TEST, GROKKED, DEAD, LOGIT)}
        for seed in range(ran.seeds):
            history = run(method, seed, ran)
            for column in (TRAIN, TEST, DEAD, LOGIT):
                found[column].append(history[-1][column])
            found[KNOWN].append(first(history, TRAIN, 0.99))
            found[GROKKED].append(first(history, TEST, 0.5))
            curves += [{"method": method} | now for now in history]
    claimed = [
        Claim(f"ce: some rows end with a loss of exactly 0 ({PAPER})", "ce", 0.0, DEAD),
        Claim(f"ce has more of them than ce in float64 ({PAPER})", "ce", WIDE, DEAD),
        Claim(f"ce, float64 generalises better than ce ({PAPER})", WIDE, "ce", TEST),
        Claim(f"ce does not generalise, below 20 % ({PAPER})", "ce", 0.2, TEST, -1),
        *(
            claim
            for method in ("stablemax", "perp_grad")
            for claim in (
                Claim(f"{method} generalises better than ce ({PAPER})", method, "ce", TEST),
                Claim(f"{method} generalises, above 90 % ({PAPER})", method, 0.9, TEST),
                Claim(
                    f"{method} generalises after it knows the training rows ({PAPER})",
                    *(method, method, GROKKED, 1, 0.0, KNOWN),
                ),
            )
        ),
        Claim("perp_grad generalises sooner than stablemax", "perp_grad", "stablemax", GROKKED, -1),
    ]
    title = {
        "text": f"a + b mod {MODULUS} from {SHARE:.0%} of the pairs",
        "subtitle": f"no weight decay; mean of {ran.seeds} seeds",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    panels = [
        lines(curves, "step", y, {"text": words, **small}, 0, 340, 260)
        for y, words in ((TEST, "On pairs not seen"), (DEAD, "Training rows whose loss is 0"))
    ]
    chart = alt.hconcat(*panels, title=title, spacing=40)
    write("grokking", scores, claimed, chart, ran, "Adam at {lr:g}, one batch of all rows")


if __name__ == "__main__":
    main()
