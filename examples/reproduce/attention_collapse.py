# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does attention collapse onto single patches at high learning rates, and does sigma_reparam help?

python examples/reproduce/attention_collapse.py

Zhai et al., arXiv 2303.06296: unstable training goes with an attention entropy near 0, and weights
divided by their spectral norm (here those of every linear layer) keep it up. A transformer of two
blocks on 16 patches of the digits, without warm-up, at Adam's learning rate times 1, 10 / 3, 10 and
33; `AttentionEntropyMonitor` measures every fifth step. log 16 = 2.77 nats is attention to all
patches alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from networks import Logged, network, train
from study import Claim, Digits, Options, Scores, accuracy, digits, options, write

from lightning_losses.callbacks import AttentionEntropyMonitor
from lightning_losses.spectral_reparam import sigma_reparam

METHODS = ("plain", "sigma_reparam")
TIMES = (1, 10 / 3, 10, 100 / 3)
SHOWN = TIMES[2]
EVERY = 5  # steps between measurements
ENTROPY, LOWEST, LOGIT = "attention entropy", "lowest head", "largest attention logit"
LOSS, ACCURACY, PAPER = "training loss", "test accuracy", "2303.06296"
MEASURED = {
    ENTROPY: "attention_entropy/mean",
    LOWEST: "attention_entropy/min",
    LOGIT: "attention_entropy/max_logit",
    LOSS: "train/loss",
}


def run(
    method: str, lr: float, data: Digits, seed: int, ran: Options
) -> tuple[dict[str, float], list[tuple[int, float]]]:
    """Means over the last 20 steps and the accuracy after them; the entropy while training."""
    net = network("transformer", seed)
    if method == "sigma_reparam":
        sigma_reparam(net)
    logged, monitor = Logged(*MEASURED.values()), AttentionEntropyMonitor(EVERY, action="log")
    train(net, data, epochs=ran.epochs, seed=seed, lr=lr, callbacks=[monitor, logged])
    found = {column: logged.end(name) for column, name in MEASURED.items()}
    found[ACCURACY] = accuracy(net, data.x_test, data.y_test)
    return found, logged.values[MEASURED[ENTROPY]][::EVERY]


def main(argv: Sequence[str] | None = None) -> None:
    import altair as alt
    from report import lines

    ran = options("attention_collapse", seeds=5, epochs=6, argv=argv, lr=3e-3)
    data = digits()
    scores: Scores = {}
    curves: list[dict[str, Any]] = []
    ends: list[dict[str, Any]] = []
    for times in TIMES:
        lr = ran.lr * times
        for method in METHODS:
            scored = scores[f"{method}, {lr:.1g}"] = {c: [] for c in (*MEASURED, ACCURACY)}
            for seed in range(ran.seeds):
                found, entropies = run(method, lr, data, seed, ran)
                for column, value in found.items():
                    scored[column].append(value)
                ends.append({"method": method, "learning rate": lr, **found})
                if times == SHOWN:
                    curves += [
                        {"method": method, "step": step, ENTROPY: value}
                        for step, value in entropies
                    ]
    rates = [f"{ran.lr * times:.1g}" for times in TIMES]
    claimed = [
        Claim(
            f"plain: {c} at {r} below {rates[0]}'s ({PAPER})",
            f"plain, {r}",
            f"plain, {rates[0]}",
            c,
            -1,
        )
        for c in (ENTROPY, LOWEST)
        for r in rates[1:]
    ]
    claimed += [
        Claim(f"{r}: sigma_reparam {words} ({PAPER})", f"sigma_reparam, {r}", f"plain, {r}", c, s)
        for words, c, s in (
            ("keeps the entropy higher", ENTROPY, 1),
            ("ends at a lower loss", LOSS, -1),
            ("is more accurate", ACCURACY, 1),
        )
        for r in rates
    ]
    title = {
        "text": "Attention of a small transformer at high learning rates",
        "subtitle": f"digits in 16 patches, no warm-up; mean of {ran.seeds} seeds",
    }
    small = {"fontSize": 14, "fontWeight": "normal"}
    while_training = {"text": f"Entropy while training at {ran.lr * SHOWN:.1g}", **small}
    left = lines(curves, "step", ENTROPY, while_training, 0, 230, 240)
    panels = [
        lines(ends, "learning rate", y, {"text": words, **small}, 0, 230, 240, log="x")
        for y, words in ((ENTROPY, "Entropy at the end"), (ACCURACY, "Accuracy at the end"))
    ]
    chart = alt.hconcat(left, *panels, title=title, spacing=30)
    setting = "Adam at {lr:g} times 1 to 33, batches of 64, under Lightning's Trainer"
    write("attention_collapse", scores, claimed, chart, ran, setting)


if __name__ == "__main__":
    main()
