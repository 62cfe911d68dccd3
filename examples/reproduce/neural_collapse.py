# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do the features of a class collapse to a point once training has hardly any errors left?

python examples/reproduce/neural_collapse.py

Papyan, Han and Donoho, arXiv 2008.08186: after that, class means become equally long (NC2 norms)
and equally far apart (NC2 angles), features gather at them (NC1), class weights turn to them (NC3),
and the classifier becomes "nearest class mean" (NC4); all five measures fall towards 0. Here
on the training digits, at the last 64 ReLU features; SGD with momentum 0.9 and the paper's weight
decay 5e-4. The start is the first measurement, every five epochs, with at most 1 % errors.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from study import Claim, Digits, Options, Scores, accuracy, digits, fit, mlp, options, write
from torch import nn

from lightning_losses import build_objective
from lightning_losses.metrics.representation.class_moments import nearest_centre
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse

DECAY, FEW = 5e-4, 0.01
METHODS = ("ce", "label_smoothing", "brier")
START, END = "few errors", "end"
NC = {"nc1": "NC1", "nc2_norms": "NC2 norms", "nc2_angles": "NC2 angles", "nc3": "NC3"}
NC4, ACCURACY, EPOCH, PAPER = "NC4", "test accuracy", "epoch", "2008.08186"
COLUMNS = (*NC.values(), NC4, ACCURACY, EPOCH)
EVERY = 5  # epochs between measurements


@torch.no_grad()
def measured(net: nn.Sequential, data: Digits) -> dict[str, float]:
    """NC1 to NC4 on the training set, test accuracy."""
    head: nn.Linear = net[1]  # type: ignore[assignment]
    features = net[0](data.x)
    metric = NeuralCollapse(10, features.shape[1])
    metric.update(features, data.y)
    found = metric.compute(head.weight)
    nearest = nearest_centre(features, found["class_mean"], found["class_count"])
    return {
        **{words: float(found[name]) for name, words in NC.items()},
        NC4: float((nearest != head(features).argmax(-1)).float().mean()),
        ACCURACY: accuracy(net, data.x_test, data.y_test),
    }


def run(method: str, data: Digits, seed: int, ran: Options) -> tuple[list[dict[str, float]], int]:
    """Measurements while training; the number of the first one with few training errors."""
    body = mlp(64, 128, 64, seed=seed).append(nn.ReLU())
    net = nn.Sequential(body, nn.Linear(64, 10))
    sgd = torch.optim.SGD(net.parameters(), lr=ran.lr, momentum=0.9, weight_decay=DECAY)
    history: list[dict[str, float]] = []
    right: list[bool] = []

    def note(epoch: int) -> None:
        if epoch % EVERY == 0 or epoch == ran.epochs:
            history.append(measured(net, data) | {EPOCH: epoch})
            right.append(accuracy(net, data.x, data.y) >= 1 - FEW)

    objective = build_objective(method)
    fit(
        net,
        objective,
        data.x,
        data.y,
        epochs=ran.epochs,
        seed=seed,
        optimizer=sgd,
        after_epoch=note,
    )
    return history, right.index(True) if any(right) else len(right) - 1


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("neural_collapse", seeds=5, epochs=200, argv=argv, lr=0.1)
    data = digits()
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    for method in METHODS:
        for moment in (START, END):
            scores[f"{method}, {moment}"] = {column: [] for column in COLUMNS}
        for seed in range(ran.seeds):
            history, first = run(method, data, seed, ran)
            for moment, found in ((START, history[first]), (END, history[-1])):
                for column in COLUMNS:
                    scores[f"{method}, {moment}"][column].append(found[column])
            curves += [{"method": method} | found for found in history]
    measures = (*NC.values(), NC4)
    claimed = [
        Claim(f"{m}: {c} falls further ({PAPER})", f"{m}, {END}", f"{m}, {START}", c, -1)
        for m in METHODS
        for c in measures
    ]
    claimed += [
        Claim(f"{m} ends with a lower {c} than ce", f"{m}, {END}", f"ce, {END}", c, -1)
        for m in METHODS[1:]
        for c in measures
    ]
    title = {
        "text": "Neural collapse while training",
        "subtitle": f"digits, training set; 0 is collapse; mean of {ran.seeds} seeds",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    panels = [
        lines(curves, EPOCH, y, {"text": y, **small}, 0, 210, 210)
        for y in ("NC1", "NC2 angles", "NC3")
    ]
    chart = alt.hconcat(*panels, title=title, spacing=30)
    setting = "SGD at {lr:g}, batches of 128"
    write("neural_collapse", scores, claimed, chart, ran, setting)


if __name__ == "__main__":
    main()
