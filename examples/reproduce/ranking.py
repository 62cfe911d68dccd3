# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a loss of pairs rank 1 positive among 100 better than a loss of rows?

python examples/reproduce/ranking.py

One digit, the seed's, against all others, of which 1 : 100 are left to train on; the test set has
all of that digit's images. Area under the ROC and average precision are scikit-learn's. Batches are
of 128 rows, of which one is a positive on average, and four in ten hold none, where `mann_whitney`
and `dice` have nothing to say; a second table trains as many steps on the whole set at once. Every
loss has the values of its YAML; `bce, weighted` has positives count as much as negatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from study import Claim, Digits, Options, Scores, digits, fit, loss_config, mlp, options, write
from torch import Tensor, nn

from lightning_losses import build_objective

RATIO = 100
WEIGHTED, FOCAL = "bce, weighted", "binary_focal"
METHODS = ("bce", WEIGHTED, FOCAL, "dice", "dice_ohem", "anyloss", "mann_whitney")
WHOLE = ", whole set"
AUC, PRECISION = "AUC", "average precision"
PAPER = "2510.00137"


def thinned(data: Digits, digit: int, seed: int) -> Tensor:
    """Rows of which 1 : 100 are of the digit."""
    others = (data.y != digit).nonzero()[:, 0]
    rare = (data.y == digit).nonzero()[:, 0]
    draw = torch.Generator().manual_seed(seed)
    kept = rare[torch.randperm(len(rare), generator=draw)[: len(others) // RATIO]]
    return torch.cat([others, kept])


def objective(method: str) -> Any:
    """Of a key; of weighted bce with the ratio as the weight of positives."""
    if method == WEIGHTED:
        return build_objective(loss_config("bce", positive_weight=float(RATIO)))
    return build_objective(method)


def named(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Any]:
    """One score a row."""
    return {"logits": net(x), "target": y}


def run(method: str, data: Digits, seed: int, ran: Options) -> dict[str, float]:
    from sklearn.metrics import average_precision_score, roc_auc_score

    digit = seed % 10
    rows = thinned(data, digit, seed)
    x, y = data.x[rows], (data.y[rows] == digit).long()
    batches = -(-len(x) // 128)
    whole = method.endswith(WHOLE)
    net = mlp(64, 64, 1, seed=seed)
    fit(
        net, objective(method.removesuffix(WHOLE)), x, y, seed=seed, lr=ran.lr, named=named,
        epochs=ran.epochs * batches if whole else ran.epochs,
        batch_size=len(x) if whole else 128,
    )  # fmt: skip
    with torch.no_grad():
        scores = net(data.x_test)[:, 0].numpy()
    true = (data.y_test == digit).numpy()
    return {
        AUC: float(roc_auc_score(true, scores)),
        PRECISION: float(average_precision_score(true, scores)),
    }


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("ranking", seeds=10, epochs=20, argv=argv)
    data = digits()
    tables: list[Scores] = []
    for after in ("", WHOLE):
        scores: Scores = {method + after: {AUC: [], PRECISION: []} for method in METHODS}
        for method in scores:
            for seed in range(ran.seeds):
                for column, value in run(method, data, seed, ran).items():
                    scores[method][column].append(value)
        tables.append(scores)
    ours, *_ = METHODS[::-1]
    claimed = [
        Claim(
            f"{ours + after} ({PAPER}) ranks better than {other}", ours + after, other + after,
            column,
        )
        for after in ("", WHOLE)
        for column in (AUC, PRECISION)
        for other in METHODS[:-1]
    ]  # fmt: skip
    title = {
        "text": "One digit among 100 others, ranked",
        "subtitle": f"batches of 128; each of {ran.seeds} seeds, and digits, a dot, the mean a bar",
    }
    chart = dots(tables[0], (AUC, PRECISION), title)
    setting = "Adam at {lr:g}, batches of 128; in the second table as many steps on all rows"
    write("ranking", tables[0], claimed, chart, ran, setting, tables[1])


if __name__ == "__main__":
    main()
