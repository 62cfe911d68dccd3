# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do losses for rare classes help when the commonest class has 100 times the rarest?

python examples/reproduce/imbalance.py

Ten classes: the training digits are thinned to 100, 60, 36, ... 1 images a class (exponential,
100 : 1); the test set keeps all classes alike. The seed draws which digits are rare. Every loss has
the values of its YAML, which are its authors', and the class counts where it asks for them.

Two classes, for which AnyLoss was made: 20 images of one digit, the seed says which, against all of
the others, 1 : 57, one linear layer as in its paper, the whole training set a batch. The score is
F1 of the rare digit on the test set, where it is one in ten.
"""

from __future__ import annotations

from collections.abc import Sequence

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
from torch import Tensor

from lightning_losses import Objective, build_objective
from lightning_losses.config.build import compose_losses

LARGEST, RATIO, CLASSES, BATCH = 100, 100, 10, 128
WARM, BY_ROW = "ce, then anyloss", "dice, style=paper"
#: The binary study's own.
RARE_ROWS, EPOCHS, RATE = 20, 400, 1e-2
WEIGHTED, BINARY_F1 = "bce, positive_weight=57", "F1 of the rare digit"
BINARY = ("bce", WEIGHTED, "binary_focal", "dice, two classes", "anyloss, two classes")
METHODS = ("ce", "class_balanced", "logit_adjustment", "focal", "dice", BY_ROW, "anyloss", WARM)
F1, WORST, RARE = "macro-F1", "worst class recall", "recall of the 3 rarest"
PAPERS = {
    "class_balanced": "1901.05555",
    "logit_adjustment": "2007.07314",
    "focal": "1708.02002, for detection",
    "dice": "1911.02855, for text",
    BY_ROW: "1911.02855, for text",
    "anyloss": "2405.14745, made for two classes",
    WARM: "2405.14745",
}


def long_tail(seed: int) -> list[int]:
    """Training images of each digit; the seed says which digits are rare."""
    sizes = [round(LARGEST * RATIO ** (-k / (CLASSES - 1))) for k in range(CLASSES)]
    ranks = torch.randperm(CLASSES, generator=torch.Generator().manual_seed(seed)).tolist()
    return [sizes[rank] for rank in ranks]


def thinned(y: Tensor, counts: Sequence[int], seed: int) -> Tensor:
    """Rows of a random subset with these counts."""
    draw = torch.Generator().manual_seed(seed)
    kept = []
    for digit, count in enumerate(counts):
        rows = (y == digit).nonzero().squeeze(1)
        kept.append(rows[torch.randperm(len(rows), generator=draw)[:count]])
    return torch.cat(kept)


def objective(method: str, counts: Sequence[int], steps: int) -> Objective:
    """The method's objective; `WARM` is ce for the first half of the steps, anyloss after it."""
    if method == WARM:
        both = compose_losses(["ce", "anyloss"])
        for name, values in (("ce", [1.0, 0.0]), ("anyloss", [0.0, 1.0])):
            both[name].weight = {
                "_target_": "lightning_losses.schedules.Piecewise",
                "boundaries": [steps // 2],
                "values": values,
            }
        return build_objective(both)
    if method in ("class_balanced", "logit_adjustment"):
        return build_objective(loss_config(method, class_counts=list(counts)))
    return build_objective(loss_config("dice", style="paper") if method == BY_ROW else method)


@torch.no_grad()
def judge(net: torch.nn.Module, data: Digits, counts: Sequence[int]) -> dict[str, float]:
    """Scores on the balanced test set; a class never predicted has F1 0."""
    prediction = net(data.x_test).argmax(-1)
    cells = torch.zeros(CLASSES, CLASSES)
    cells.index_put_((data.y_test, prediction), torch.ones(len(prediction)), accumulate=True)
    hits, true, given = cells.diag(), cells.sum(1), cells.sum(0)
    recall, f1 = hits / true, 2 * hits / (true + given)
    rare = torch.tensor(counts).argsort()[:3]
    return {
        F1: float(f1.mean()),
        WORST: float(recall.min()),
        RARE: float(recall[rare].mean()),
    }


def run(method: str, data: Digits, seed: int, ran: Options) -> dict[str, float]:
    counts = long_tail(seed)
    rows = thinned(data.y, counts, seed)
    net = mlp(64, 128, 128, CLASSES, seed=seed)
    steps = ran.epochs * -(-len(rows) // BATCH)
    made = objective(method, counts, steps)
    x, y = data.x[rows], data.y[rows]
    fit(net, made, x, y, epochs=ran.epochs, seed=seed, lr=ran.lr, batch_size=BATCH)
    return judge(net, data, counts)


def run_binary(method: str, data: Digits, seed: int, epochs: int) -> float:
    """F1 of one rare digit against the others, of a linear layer trained on whole batches."""
    digit = seed % CLASSES
    draw = torch.Generator().manual_seed(seed)
    rare, others = ((data.y == digit) == yes for yes in (True, False))
    kept = rare.nonzero().squeeze(1)
    kept = kept[torch.randperm(len(kept), generator=draw)[:RARE_ROWS]]
    rows = torch.cat([kept, others.nonzero().squeeze(1)])
    x, y = data.x[rows], (data.y[rows] == digit).long()
    if method == WEIGHTED:
        made = build_objective(loss_config("bce", positive_weight=57.0))
    else:
        made = build_objective(method.removesuffix(", two classes"))
    net = mlp(64, 1, seed=seed)
    fit(net, made, x, y, epochs=epochs, seed=seed, lr=RATE, batch_size=len(x))
    with torch.no_grad():
        found, true = net(data.x_test)[:, 0] > 0, data.y_test == digit
    return float(2 * (found & true).sum() / (found.sum() + true.sum()))


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("imbalance", seeds=10, epochs=200, argv=argv)
    data = digits()
    scores: Scores = {}
    for method in METHODS:
        found = scores[method] = {F1: [], WORST: [], RARE: []}
        for seed in range(ran.seeds):
            for column, value in run(method, data, seed, ran).items():
                found[column].append(value)
    binary: Scores = {
        method: {
            BINARY_F1: [
                run_binary(method, data, seed, min(EPOCHS, 2 * ran.epochs))
                for seed in range(ran.seeds)
            ]
        }
        for method in BINARY
    }
    claimed = [
        Claim(f"{words}: {method} ({PAPERS[method]}) above ce", method, "ce", column)
        for words, column in (("macro-F1", F1), ("worst class", WORST))
        for method in METHODS[1:]
    ]
    any_loss = "anyloss, two classes"
    claimed += [
        Claim("two classes: anyloss (2405.14745) above bce", any_loss, "bce", BINARY_F1),
        Claim("two classes: dice (1911.02855) above bce", "dice, two classes", "bce", BINARY_F1),
        Claim("two classes: anyloss above weighted bce", any_loss, WEIGHTED, BINARY_F1),
    ]
    title = {
        "text": "Classes 100 : 1, scored on all classes alike",
        "subtitle": f"digits; {ran.seeds} seeds, one a dot, and their mean",
    }
    chart = dots(scores, (F1, RARE, WORST), title)
    setting = (
        "Adam at {lr:g}, batches of 128; two classes: Adam at 0.01 on a linear layer, "
        f"{min(EPOCHS, 2 * ran.epochs)} whole batches"
    )
    write("imbalance", scores, claimed, chart, ran, setting, binary)


if __name__ == "__main__":
    main()
