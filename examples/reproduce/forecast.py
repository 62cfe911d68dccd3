# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a law fitted to small runs tell the loss of a run four times as large?

python examples/reproduce/forecast.py

Labels are drawn from the probabilities of a teacher net, without end, so that nothing is learned by
heart and the loss has a floor that no student gets below. Five students of 2 to 32 hidden units say
what 128 would reach, and five amounts of data what four times the most would; the law is
`E + A / x^alpha`, as the report fits it over the runs of a sweep. Beside it what one would do
without: a straight line in logarithms, which has no floor, and the loss of the largest run.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from study import Claim, Options, Scores, fit, mlp, options, write
from torch import Tensor, nn

from lightning_losses import build_objective
from lightning_losses.metrics.training_curve.run_laws import Refused, fit_power

INPUTS, CLASSES, TEST = 16, 10, 8192
WIDTHS, WIDE = (2, 4, 8, 16, 32), 128
#: Times 32 rows an "epoch" of the command line; what the last is multiplied by is forecast.
AMOUNTS, MORE, ENOUGH = (16, 32, 64, 128, 256), 1024, 512
RESAMPLES = 50  # of the runs, for the interval
FIXED = 32  # width of the students that see different amounts
LAW, LINE, LARGEST = "the law", "a straight line", "the largest run"
OF_N, OF_D = "off, parameters", "off, data"
WITHIN_N, WITHIN_D = "inside, parameters", "inside, data"
KAPLAN, HOFFMANN = "2001.08361", "2203.15556"


def drawn(seed: int, rows: int, part: int) -> tuple[Tensor, Tensor]:
    """Inputs and labels of the seed's teacher."""
    teacher = mlp(INPUTS, 64, CLASSES, seed=900 + seed)
    g = torch.Generator().manual_seed(10 * seed + part)
    x = torch.randn(rows, INPUTS, generator=g)
    with torch.no_grad():
        p = (12 * teacher(x)).softmax(1)
    return x, torch.multinomial(p, 1, generator=g)[:, 0]


def named(net: nn.Module, x: Tensor, y: Tensor) -> dict[str, Tensor]:
    return {"logits": net(x), "target": y}


def final_loss(width: int, rows: int, seed: int, lr: float) -> float:
    """Of unseen rows, after one pass over so many, in nats."""
    net = mlp(INPUTS, width, CLASSES, seed=seed)
    x, y = drawn(seed, rows, 0)
    fit(net, build_objective("ce"), x, y, epochs=1, seed=seed, lr=lr, batch_size=64, named=named)
    x, y = drawn(seed, TEST, 1)
    with torch.no_grad():
        return float(nn.functional.cross_entropy(net(x), y))


def parameters(width: int) -> int:
    return (INPUTS + 1) * width + (width + 1) * CLASSES


def told(x: Sequence[float], loss: Sequence[float], at: float) -> tuple[dict[str, float], float]:
    """What each method says of the loss at a larger x; how often the law's interval (1) is empty.

    Where the law is refused it says what one knows without it, the loss of the largest run.
    """
    logs = torch.tensor([[1.0, math.log(a)] for a in x], dtype=torch.float64)
    line = torch.linalg.lstsq(logs, torch.tensor(loss, dtype=torch.float64).log()[:, None])
    slope = line.solution[:, 0]
    said = {LINE: math.exp(float(slope[0] + slope[1] * math.log(at))), LARGEST: loss[-1]}
    try:
        law = fit_power(x, loss, RESAMPLES)
    except Refused:
        return said | {LAW: loss[-1]}, math.nan
    value = float(law.law.loss(torch.tensor(at, dtype=torch.float64)))
    low, high = law.interval(at)
    return said | {LAW: value, "low": low, "high": high}, 1.0


def run(seed: int, ran: Options) -> dict[str, dict[str, float]]:
    """By method how far it is off, in nats; of the law whether the truth lies in its interval."""
    found: dict[str, dict[str, float]] = {m: {} for m in (LAW, LINE, LARGEST)}
    rows = 32 * ran.epochs
    sweeps = {
        OF_N: [
            (parameters(w), final_loss(w, ENOUGH * rows, seed, ran.lr)) for w in (*WIDTHS, WIDE)
        ],
        OF_D: [(a * rows, final_loss(FIXED, a * rows, seed, ran.lr)) for a in (*AMOUNTS, MORE)],
    }
    for column, within in ((OF_N, WITHIN_N), (OF_D, WITHIN_D)):
        x, loss = (list(values) for values in zip(*sweeps[column], strict=True))
        said, fitted = told(x[:-1], loss[:-1], x[-1])
        for method in found:
            found[method][column] = abs(said[method] - loss[-1])
            inside = method == LAW and fitted == 1.0 and said["low"] <= loss[-1] <= said["high"]
            found[method][within] = float(inside)
    return found


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("forecast", seeds=5, epochs=4, argv=argv, lr=3e-3)
    columns = (OF_N, OF_D, WITHIN_N, WITHIN_D)
    scores: Scores = {m: {c: [] for c in columns} for m in (LAW, LINE, LARGEST)}
    for seed in range(ran.seeds):
        for method, found in run(seed, ran).items():
            for column, value in found.items():
                scores[method][column].append(value)
    for method in (LINE, LARGEST):  # they have no interval
        for column in (WITHIN_N, WITHIN_D):
            del scores[method][column]
    own = {column: scores[LAW].pop(column) for column in (WITHIN_N, WITHIN_D)}
    inside = {"the law's interval": own}
    claimed = [
        Claim(f"{LAW} ({KAPLAN}, {HOFFMANN}) is nearer than {other}", LAW, other, column, -1)
        for column in (OF_N, OF_D)
        for other in (LINE, LARGEST)
    ]
    title = {
        "text": "The loss of a run four times as large, told from smaller ones",
        "subtitle": f"nats off; each of {ran.seeds} seeds a dot, the mean a bar",
    }
    chart = dots(scores, (OF_N, OF_D), title)
    setting = "one pass, Adam at {lr:g}, batches of 64; the second table is the share of seeds in "
    setting += "which the truth lies in the law's interval at 90 %"
    write("forecast", scores, claimed, chart, ran, setting, inside)


if __name__ == "__main__":
    main()
