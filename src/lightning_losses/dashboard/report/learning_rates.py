# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A sweep of learning rates in a comparison: what not knowing the best one costs, arm by arm.

An arm is the runs that differ in the learning rate and in nothing else but the seed.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from lightning_losses.dashboard.charts.curves import Chart
from lightning_losses.dashboard.charts.scatter import Points, scatter
from lightning_losses.dashboard.report.ending import loss_of
from lightning_losses.dashboard.report.final_losses import (
    FinalLosses,
    arms,
    is_seed,
    of_losses,
    varied,
)
from lightning_losses.dashboard.report.sentences import Said
from lightning_losses.dashboard.runs.run import Run
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity

NAMES = ("lr", "learning_rate", "max_lr", "base_lr")  # last parts of a setting's name
FEWEST = 3  # rates of an arm: two do not tell a valley from a slope
MOST = 7  # arms that are told apart by their colours


class Arm(NamedTuple):
    """Final loss by learning rate, the mean over seeds; infinite where a run died."""

    name: str
    rates: list[float]
    losses: list[float]
    initial: float
    sensitivity: float


def rate_sweep(
    runs: Sequence[Run], finals: FinalLosses | None, settings: Sequence[str]
) -> tuple[list[Said], list[tuple[str, str, Chart]]]:
    """Sentences and the chart of a sweep of learning rates; none where that is no such sweep.

    Args:
        finals: what the runs ended at.
        settings: names of the settings in which the configs of the runs differ.
    """
    if finals is None:
        return [], []
    keys = [key for key in settings if is_rate(key)]
    found: list[Arm] = []
    for key in keys[:1]:
        # Hyperparameters repeat the learning rate of the config under a name of their own.
        others = [one for one in settings if not is_seed(one) and not is_rate(one)]
        rated = {at: run for at, run in enumerate(runs) if positive(run.config.get(key))}
        for names, places in arms(rated, others).items():
            one = arm(runs, finals, key, places)
            if one is not None:
                differ = [f"{short(k)}={v}" for k, v in names if k in varied(runs, others) and v]
                found.append(one._replace(name=", ".join(differ)[:60] or "runs"))
    if not found:
        return [], []
    return sentences(found, runs, finals, settings), [
        ("lr_sensitivity", f"{finals.name} over learning rates", chart(found, finals.name))
    ]


def is_rate(key: str) -> bool:
    """Whether a setting is a learning rate."""
    return short(key).lower() in NAMES


def short(key: str) -> str:
    """The last part of a setting's name."""
    return key.rsplit(".", 1)[-1]


def positive(cell: object) -> bool:
    """Whether a setting is a rate."""
    return isinstance(cell, float) and cell > 0


def arm(runs: Sequence[Run], finals: FinalLosses, key: str, places: Sequence[int]) -> Arm | None:
    """The sweep of runs that differ in the rate only; None with too few rates, or none that ended.

    A run that died, or did not come to its end, has learned nothing, as in the paper.
    """
    at_rate: dict[float, list[float]] = {}
    for at in places:
        rate = runs[at].config[key]
        assert isinstance(rate, float)
        at_rate.setdefault(rate, []).append(finals.values.get(at, float("inf")))
    rates = sorted(at_rate)
    firsts = [one for at in places if (one := first_loss(runs[at], finals.name)) is not None]
    if len(rates) < FEWEST or not firsts or not any(at in finals.values for at in places):
        return None
    losses = [sum(at_rate[rate]) / len(at_rate[rate]) for rate in rates]
    initial = max(firsts)
    if all(loss == float("inf") for loss in losses):
        return None
    return Arm("", rates, losses, initial, lr_sensitivity(losses, initial, rates))


def first_loss(run: Run, name: str) -> float | None:
    """The loss as near to the beginning as the run measured it: of the first step of training."""
    loss = loss_of(run.series)
    first = [one for one in (loss and loss[1], run.series.get(name)) if one and len(one.values)]
    return max((one.first for one in first), default=None)


def sentences(
    found: Sequence[Arm], runs: Sequence[Run], finals: FinalLosses, settings: Sequence[str]
) -> list[Said]:
    """What the sweep says, the least sensitive arm first."""
    lines = []
    for one in sorted(found, key=lambda one: one.sensitivity)[:MOST]:
        best = min(one.losses)
        at = one.rates[one.losses.index(best)]
        who = "" if len(found) == 1 and one.name == "runs" else f"{one.name}: "
        text = (
            f"{who}{finals.name} is best at a learning rate of {at:g} ({best:.3g}); over "
            f"{one.rates[0]:g} to {one.rates[-1]:g} it is {one.sensitivity:.3g} higher on average "
            "(learning rate sensitivity, over the logarithm of the rate)."
        )
        if at in (one.rates[0], one.rates[-1]):
            text += " The best is at the edge of the sweep: a wider one may find a better."
        died = sum(loss == float("inf") for loss in one.losses)
        seen = f"{len(one.rates)} rates, losses above the first of training ({one.initial:.3g}) "
        seen += "count as that" + (f"; {died} of them died or did not end" if died else "")
        lines.append(Said("note", text, seen))
    if len({tuple(one.rates) for one in found}) > 1:
        text = "The arms were swept over different learning rates, so their sensitivities do not "
        lines.append(Said("unknown", text + "compare: sweep all over the same."))
    elif len(found) > 1 and finals.of_an_objective and varied(runs, of_losses(settings)):
        text = f"{finals.name} is another loss in other arms, so their sensitivities do not compare"
        lines.append(Said("unknown", text + "; CalibrationMonitor's likelihood would."))
    return lines


def chart(found: Sequence[Arm], loss: str) -> Chart:
    """Loss over the rate, an arm a colour; what is above the first loss is drawn at it."""
    groups = []
    for one in found[:MOST]:
        capped = [min(value, one.initial) for value in one.losses]
        line = list(zip(one.rates, capped, strict=True))
        groups.append(Points(one.name, one.rates, capped, line))
    facts = [
        f"lr_sensitivity{f' of {one.name}' if len(found) > 1 else ''} {one.sensitivity:.3g}"
        for one in found[:MOST]
    ]
    facts += [f"{len(found) - MOST} more arms are not drawn"] if len(found) > MOST else []
    return scatter(groups, "learning rate", loss)._replace(facts=facts)
