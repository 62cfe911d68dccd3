# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Do losses for calibration beat cross-entropy, and cross-entropy with a temperature?

python examples/reproduce/calibration.py

20 % of all labels of the digits are wrong, of training, held-out and test images alike, as where
annotators err: the best confidence is near 0.8, and a net that memorises its training labels is far
above it. Every loss has the values of its YAML; terms that stand beside another loss stand beside
ce. Each net is measured as it is and after temperature scaling on the held-out images.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from label_noise import wrong_labels
from study import Claim, Digits, Options, Scores, digits, fit, mlp, options, write
from torch import Tensor

from lightning_losses import build_objective
from lightning_losses.calibrators import TemperatureScaling
from lightning_losses.metrics import StreamingCalibration, top_label

METHODS: dict[str, list[str]] = {
    "ce": ["ce"],
    "focal": ["focal"],
    "dual_focal": ["dual_focal"],
    "ce + mmce": ["ce", "mmce"],
    "ce + mdca": ["ce", "mdca"],
    "ce + soft_binned_ece": ["ce", "soft_binned_ece"],
    "ce + correctness_aware": ["ce", "correctness_aware"],
}
PAPERS = {
    "focal": "2002.09437",
    "dual_focal": "2305.13665",
    "ce + mmce": "Kumar et al. 2018",
    "ce + mdca": "2203.13834",
    "ce + soft_binned_ece": "2108.00106",
    "ce + correctness_aware": "2404.13016, which corrects finished nets",
}
NOISE, HELD_OUT = 0.2, 257
ACCURACY, ECE, PLUG_IN, DEBIASED = "accuracy", "ECE", "l2", "l2 debiased"
SMOOTH, BRIER = "smECE", "Brier"
COLUMNS = {
    ACCURACY: "accuracy",
    ECE: "ece",
    PLUG_IN: "rmsce_equal_mass",
    DEBIASED: "ece_debiased",
    SMOOTH: "smece_fixed",
    BRIER: "brier",
}


def scaled(method: str) -> str:
    """The method's name once its temperature is fitted."""
    return f"{method}, temperature"


def measured(logits: Tensor, target: Tensor) -> dict[str, float]:
    """The columns of the table, of test rows."""
    metric = StreamingCalibration()
    metric.update(*top_label(logits, target))
    values = metric.compute()
    return {column: float(values[name]) for column, name in COLUMNS.items()}


def run(
    losses: list[str], data: Digits, seed: int, ran: Options
) -> tuple[dict[str, float], dict[str, float]]:
    """What a net measures as it is and after temperature scaling."""
    y = wrong_labels(data.y, NOISE, seed)
    y_test = wrong_labels(data.y_test, NOISE, 1000 + seed)
    # Another seed than the labels have, whose wrong rows come first in the same permutation.
    order = torch.randperm(len(y), generator=torch.Generator().manual_seed(2000 + seed))
    held_out, train = order[:HELD_OUT], order[HELD_OUT:]
    net = mlp(64, 128, 128, 10, seed=seed)
    objective = build_objective(losses)
    fit(net, objective, data.x[train], y[train], epochs=ran.epochs, seed=seed, lr=ran.lr)
    with torch.no_grad():
        logits, known = net(data.x_test), net(data.x[held_out])
    temperature = TemperatureScaling().fit(known, y[held_out]).temperature
    return measured(logits, y_test), measured(logits / temperature, y_test)


def main(argv: Sequence[str] | None = None) -> None:
    from report import dots

    ran = options("calibration", seeds=5, epochs=60, argv=argv)
    data = digits()
    plain: Scores = {}
    after: Scores = {}
    for name, losses in METHODS.items():
        plain[name] = {column: [] for column in COLUMNS}
        after[scaled(name)] = {column: [] for column in COLUMNS}
        for seed in range(ran.seeds):
            for scores, found in zip(
                (plain[name], after[scaled(name)]), run(losses, data, seed, ran), strict=True
            ):
                for column, value in found.items():
                    scores[column].append(value)
    others = list(METHODS)[1:]
    claimed = [
        Claim(f"{name} ({PAPERS[name]}) is better calibrated than ce", name, "ce", DEBIASED, -1)
        for name in others
    ]
    claimed += [
        Claim(f"{name} has a lower Brier score than ce", name, "ce", BRIER, -1) for name in others
    ]
    claimed.append(
        Claim("a temperature calibrates ce (1706.04599)", scaled("ce"), "ce", DEBIASED, -1)
    )
    claimed += [
        Claim(
            f"{name} is better calibrated than ce with a temperature",
            name,
            scaled("ce"),
            DEBIASED,
            -1,
        )
        for name in others
    ]
    claimed += [
        Claim(
            f"with a temperature each, {name} has a lower Brier score than ce",
            scaled(name),
            scaled("ce"),
            BRIER,
            -1,
        )
        for name in others
    ]
    picture = {
        name: {
            SMOOTH: plain[name][SMOOTH],
            f"{SMOOTH} after temperature": after[scaled(name)][SMOOTH],
            f"{BRIER} after temperature": after[scaled(name)][BRIER],
        }
        for name in METHODS
    }
    title = {
        "text": "20 % wrong labels: calibration with and without a temperature",
        "subtitle": f"digits, each of {ran.seeds} seeds a dot, the mean a bar; lower is better",
    }
    chart = dots(picture, list(picture["ce"]), title, width=200)
    write("calibration", plain, claimed, chart, ran, more=after)


if __name__ == "__main__":
    main()
