# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does a run survive a learning rate that is suddenly 100 to 10,000 times too large?

python examples/reproduce/spikes.py

P. Sao, arXiv 2603.13552. The schedule multiplies Adam's learning rate by 100 or 10,000 for one step
at 40 % of the run, or by 1000 from there to the end. none: nothing is done. clip: gradient clipping
at norm 1. controller: `StepRadiusController` as its YAML has it (target 1), on from the first step.
All under Lightning's Trainer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from networks import KINDS, network, steps_of, train
from study import Claim, Digits, Options, Scores, accuracy, digits, options, write

from lightning_losses.callbacks import StepRadiusController

METHODS = ("none", "clip", "controller")
CALM, SMALL, LARGE, HELD = "no spike", "x100", "x10,000", "x1000 held"
SPIKES = (CALM, SMALL, LARGE, HELD)
LIMITED = "steps limited, no spike"
CHANCE, NEAR, POINTS = 0.1, 0.2, 0.03


def factor(spike: str, at: int) -> Callable[[int], float]:
    """What the learning rate is multiplied by at each step."""
    return {
        CALM: lambda _: 1.0,
        SMALL: lambda step: 100.0 if step == at else 1.0,
        LARGE: lambda step: 10_000.0 if step == at else 1.0,
        HELD: lambda step: 1000.0 if step >= at else 1.0,
    }[spike]


def run(
    kind: str, method: str, spike: str, data: Digits, seed: int, ran: Options
) -> tuple[float, float]:
    """Test accuracy at the end; share of steps that the controller limited."""
    net, steps = network(kind, seed), steps_of(data, ran.epochs)
    controller = StepRadiusController()
    train(
        net,
        data,
        epochs=ran.epochs,
        seed=seed,
        lr=ran.lr,
        factor=factor(spike, int(0.4 * steps)),
        callbacks=[controller] if method == "controller" else [],
        clip=1.0 if method == "clip" else None,
    )
    return accuracy(net, data.x_test, data.y_test), controller.interventions / steps


def claims_of(kind: str) -> list[Claim]:
    """What the paper has us expect of one kind of net."""
    none, controlled = f"{kind}, none", f"{kind}, controller"
    lost = [
        Claim(f"{kind}, {m}: {LARGE} ends near chance, below 20 %", f"{kind}, {m}", NEAR, LARGE, -1)
        for m in ("none", "clip")
    ]
    kept = [
        Claim(
            f"{kind}, controller: {spike} ends at most 3 points below no spike, none",
            *(controlled, none, spike, 1, POINTS, CALM),
        )
        for spike in SPIKES
    ]
    return lost + kept


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("spikes", seeds=4, epochs=5, argv=argv, lr=1e-2)
    data = digits()
    scores: Scores = {}
    for kind in KINDS:
        for method in METHODS:
            found = scores[f"{kind}, {method}"] = {c: [] for c in (*SPIKES, LIMITED)}
            for seed in range(ran.seeds):
                for spike in SPIKES:
                    score, limited = run(kind, method, spike, data, seed, ran)
                    found[spike].append(score)
                    if spike == CALM:
                        found[LIMITED].append(limited)
    claimed = [claim for kind in KINDS for claim in claims_of(kind)]
    title = {
        "text": "Test accuracy after a spike of the learning rate",
        "subtitle": f"digits; {ran.seeds} seeds, one a dot, and their mean",
    }
    chart = dots(scores, SPIKES, title, width=170, domain=(0, 1))
    setting = "Adam at {lr:g}, batches of 64, under Lightning's Trainer"
    write("spikes", scores, claimed, chart, ran, setting)


if __name__ == "__main__":
    main()
