# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Curves of monitors and controllers on trainings that are known to be healthy or sick.

    python benchmarks/curves.py
    python benchmarks/curves.py --only entropy

The trainings are those of `alarms.py`. What is asked for is written to
``benchmarks/results/curves.json`` beside what stood there before, and the site draws it on the page
of each monitor. Takes a few minutes on one core.
"""

from __future__ import annotations

import argparse
import json
import logging
import platform
import sys
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import lightning as L
import torch
from alarms import HEALTHY, SICK, Outcome, run

from lightning_losses import callbacks as c

RESULTS = Path(__file__).parent / "results" / "curves.json"
CASES = HEALTHY | SICK
POINTS = 100


Treatment = Callable[[], L.Callback]


class Line(NamedTuple):
    """A metric over the steps of a training."""

    label: str
    case: str
    metric: str
    sick: bool = False
    alarm: str = ""
    """What is raised in it, as `alarms.py` calls it."""
    treatment: Treatment | None = None
    """A controller."""


class Picture(NamedTuple):
    """Lines that are looked at together."""

    what: str
    lines: tuple[Line, ...]
    log: bool = False


#: First part of a metric -> the monitor that logs it, beside those of `alarms.py`.
MONITORS: dict[str, Callable[[], L.Callback]] = {
    "calibration/": c.CalibrationMonitor,
    "entropy/ceiling": partial(c.EntropyLaw, "train/reward"),
    "loss_by/": partial(c.LossByMonitor, by="target"),
    "post_hoc/": c.PostHocCalibration,
    "step_radius/": partial(c.StepRadiusMonitor, every_n_steps=10),
    "term_balance/": partial(c.TermBalanceMonitor, every_n_steps=10),
}


def pair(
    metric: str, healthy: tuple[str, str], sick: tuple[str, str], alarm: str = ""
) -> tuple[Line, Line]:
    """The same metric of a healthy and of a sick training, each a label and a name."""
    return Line(*healthy, metric), Line(*sick, metric, sick=True, alarm=alarm)


def treated(
    metric: str, case: str, without: str, label: str, treatment: Treatment
) -> tuple[Line, Line]:
    """A sick training with a controller and without."""
    return Line(label, case, metric, treatment=treatment), Line(without, case, metric, sick=True)


DIGITS = ("digits, AdamW", "digits_adamw_0.001")
WRONG = ("40 % of the labels are wrong", "digits_wrong_labels")
FEW = ("64 rows, a fifth of the labels wrong", "digits_few_rows")
PICTURES: dict[str, tuple[Picture, ...]] = {
    "attention_entropy": (
        Picture("attention_entropy/mean, nats", pair(
            "attention_entropy/mean", ("text, AdamW", "text_adamw_0.001"),
            ("queries and keys grow by 5 % a step from step 450", "text_attention_collapse"),
            "attention collapse",
        )),
    ),
    "calibration": (
        Picture("calibration/val/ece, a fraction", pair("calibration/val/ece", DIGITS, WRONG)),
    ),
    "entropy": (
        Picture("entropy/mean of a policy, nats", pair(
            "entropy/mean", ("with an entropy bonus", "policy_bonus"),
            ("without", "policy_collapse_slow"), "policy collapse",
        )),
    ),
    "entropy_law": (
        Picture("a policy without entropy bonus: its reward, and what the law foretells", (
            Line("train/reward", "policy_collapse_slow", "train/reward"),
            Line("entropy/ceiling", "policy_collapse_slow", "entropy/ceiling", sick=True),
        )),
    ),
    "entropy_target": (
        Picture("entropy/mean of a policy, nats", treated(
            "entropy/mean", "policy_collapse_late", "the entropy bonus ends at step 300",
            "EntropyTarget(2.0)", partial(c.EntropyTarget, 2.0, delta=0.01, max_coefficient=1.0),
        )),
    ),
    "gradient_rms": (
        Picture("gradient_rms/smallest", pair(
            "gradient_rms/smallest", DIGITS, ("the loss times 1e-8", "digits_eps"),
            "gradients near eps",
        ), log=True),
    ),
    "logit_health": (
        Picture("logit_health/max_logit", pair(
            "logit_health/max_logit", DIGITS,
            ("the head grows by 1 % a step from step 200", "digits_logit_growth"), "logit growth",
        ), log=True),
    ),
    "loss_by": (
        Picture("loss_by/val/gap by target, nats", pair(
            "loss_by/val/gap", DIGITS,
            ("from step 200 the head is pushed to one class", "digits_one_class"),
        ), log=True),
    ),
    "perp_grad": (
        Picture("logit_health/max_logit; 64 rows to learn from", treated(
            "logit_health/max_logit", FEW[1], "without", "PerpGrad()", c.PerpGrad,
        )),
    ),
    "post_hoc_calibration": (
        Picture("calibration error of validation where 40 % of the labels are wrong, a fraction", (
            Line("post_hoc/val/ece_after", WRONG[1], "post_hoc/val/ece_after"),
            Line("post_hoc/val/ece_before", WRONG[1], "post_hoc/val/ece_before", sick=True),
        )),
    ),
    "step_radius": (
        Picture("step_radius/r", pair(
            "step_radius/r", DIGITS, ("the learning rate times 100 in step 300", "digits_spike"),
        ), log=True),
    ),
    "step_radius_controller": (
        Picture("train/loss, nats; the learning rate times 100 in step 300", treated(
            "train/loss", "digits_spike", "without", "StepRadiusController()",
            c.StepRadiusController,
        ), log=True),
    ),
    "term_balance": (
        Picture("term_balance/share/entropy_bonus, a fraction", pair(
            "term_balance/share/entropy_bonus", ("bonus 0.1", "policy_bonus"),
            ("bonus 3, under which entropy explodes", "policy_explosion_early"),
        )),
    ),
}  # fmt: skip


class Trainings:
    """Each training once, with the monitors that all lines want of it; they change no bit of it."""

    def __init__(self, lines: Sequence[Line]) -> None:
        self.lines = lines
        self.done: dict[tuple[str, Treatment | None], Outcome] = {}

    def of(self, line: Line) -> Outcome:
        """What the training of a line wrote."""
        which = (line.case, line.treatment)
        if which not in self.done:
            metrics = [one.metric for one in self.lines if (one.case, one.treatment) == which]
            more = [
                make()
                for first, make in MONITORS.items()
                if any(metric.startswith(first) for metric in metrics)
            ]
            more += [line.treatment()] if line.treatment else []
            self.done[which] = run(CASES[line.case], more=more)
        return self.done[which]


def thinned(steps: Sequence[float], values: Sequence[float]) -> list[list[float]]:
    """At most POINTS points, those of every k-th and the last; four digits are enough to draw."""
    stride = -(-len(steps) // POINTS)
    kept = sorted({*range(0, len(steps), stride), len(steps) - 1}) if len(steps) else []
    return [[round(float(steps[i])), float(f"{values[i]:.4g}")] for i in kept]


def drawn(line: Line, outcome: Outcome) -> dict[str, Any]:
    """What is kept of a line."""
    found = outcome.written.series.get(line.metric)
    if found is None:
        raise KeyError(f"{line.metric} is not in {sorted(outcome.written.series)}")
    out: dict[str, Any] = {"label": line.label, "training": line.case, "sick": line.sick}
    if line.alarm:
        out["spoke"] = outcome.raised[line.alarm]
    return out | {"points": thinned(found.steps.tolist(), found.values.tolist())}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the trainings of the pictures that are asked for, and write the file."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--only", nargs="*", choices=sorted(PICTURES), help="keys; all if not given"
    )
    parser.add_argument("--out", type=Path, default=RESULTS)
    options = parser.parse_args(argv)
    torch.set_num_threads(1)
    for quiet in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(quiet).setLevel(logging.ERROR)
    warnings.filterwarnings("ignore")
    written = json.loads(options.out.read_text()) if options.out.exists() else {"curves": {}}
    about = f"torch {torch.__version__}, lightning {L.__version__}, {platform.machine()}"
    written |= {"command": "python benchmarks/curves.py", "about": about}
    asked = {key: PICTURES[key] for key in options.only or PICTURES}
    trainings = Trainings([line for some in asked.values() for one in some for line in one.lines])
    for key, pictures in asked.items():
        written["curves"][key] = [
            {
                "what": one.what,
                "log": one.log,
                "lines": [drawn(line, trainings.of(line)) for line in one.lines],
            }
            for one in pictures
        ]
        written["curves"] = dict(sorted(written["curves"].items()))
        options.out.write_text(json.dumps(written, separators=(",", ":")) + "\n")
        print(key, flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
