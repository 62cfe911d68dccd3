# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How a training ended and how far it got: from its own record, or from what its log shows."""

from __future__ import annotations

import re
from math import isfinite, nan

import numpy as np

from lightning_losses.dashboard.report.sentences import Curves, Said, at, seen
from lightning_losses.dashboard.runs.run import EXITED, Ended, Run, Series


def ending(run: Run) -> list[Said]:
    """Why the training ended and how far it got of what was planned."""
    loss = loss_of(run.series)
    if run.ended is not None and not of_process(run.ended):
        return [recorded_end(run.ended, loss), *died(loss)]
    dead = died(loss)
    if dead:
        return dead
    planned = planned_steps(run)
    last = loss[1].last_step + 1 if loss else 0.0
    evidence = seen(*loss) if loss else "no loss was logged"
    if run.ended is not None and run.ended.reason != EXITED:
        return [Said("bad", f"The process ended with {run.ended.reason}.", run.ended.source)]
    if planned is not None and last > 0:
        stride = stride_of(loss[1]) if loss else 1.0
        plan = f"about {planned:,.0f} planned steps"
        if last + 2 * stride < planned:
            text = f"The log ends at {at(last)} of {plan}, and nothing says why: stopped early, "
            return [Said("bad", f"{text}out of time, killed, or still running.", evidence)]
        return [Said("good", f"The log reaches the planned end: {at(last)} of {plan}.", evidence)]
    if run.ended is not None:
        text = f"The process ended without an error at {at(last)}; what was planned is not known."
        return [Said("note", text, f"{run.ended.source}; {evidence}")]
    text = f"How the training ended is not known: the last step of the log is {last - 1:,.0f}, and "
    text += "neither ended.csv nor a planned number of steps was found."
    return [Said("unknown", text, evidence)]


def recorded_end(ended: Ended, loss: tuple[str, Series] | None) -> Said:
    """What the end-of-run record says."""
    reason = ended.reason.strip().rstrip(".")[:300]
    step = ended.step if isfinite(ended.step) else loss[1].last_step + 1 if loss else nan
    known = isfinite(ended.planned_steps) and ended.planned_steps > 0
    of = f" of {ended.planned_steps:,.0f} planned" if known else ""
    where = f"at {at(step)}{of}" if isfinite(step) else "at a step that is not known"
    if reason.startswith("stopped"):
        return Said("note", f"Training was stopped early {where} ({reason}).", ended.source)
    if reason == "finished":
        short = known and step < ended.planned_steps
        return Said("note" if short else "good", f"Training finished {where}.", ended.source)
    return Said("bad", f"Training ended {where}: {reason}.", ended.source)


def of_process(ended: Ended) -> bool:
    """Whether only the end of the process is known, and not that of the training in it."""
    return ended.reason == EXITED or ended.reason.startswith("exit code")


def loss_of(series: Curves) -> tuple[str, Series] | None:
    """The curve that tells where a training is: of its loss, else the longest."""
    if not series:
        return None
    named = [name for name in series if re.search(r"train.*loss$|^loss$", name)]
    name = "train/loss" if "train/loss" in series else min(named, key=len, default="")
    if not name:
        name = max(series, key=lambda one: len(series[one].values) + len(series[one].not_finite))
    return name, series[name]


def died(loss: tuple[str, Series] | None) -> list[Said]:
    """A loss that was not finite to the end is a training that died."""
    if loss is None or not len(loss[1].not_finite):
        return []
    name, one = loss
    last_good = float(one.steps[-1]) if len(one.steps) else -1.0
    if one.not_finite[-1] < last_good:
        return []
    first = float(one.not_finite[one.not_finite > last_good][0])
    text = f"The training died: {name} is NaN or infinite from {at(first)} to its end"
    return [Said("bad", f"{text} ({at(one.last_step)}).", seen(name, one))]


def planned_steps(run: Run) -> float | None:
    """The optimizer steps that the config asks for; None where it does not say."""

    def setting(name: str) -> float | None:
        for key in (f"trainer.{name}", name):
            value = run.config.get(key)
            if isinstance(value, float) and value > 0:
                return value
        return None

    plans = []
    steps, epochs = setting("max_steps"), setting("max_epochs")
    if steps is not None:
        plans.append(steps)
    clock = run.clock
    if epochs is not None and run.epochs and len(clock.steps) > 1 and run.epochs > 1:
        length = (clock.steps[-1] - clock.steps[0]) / (clock.epochs[-1] - clock.epochs[0])
        plans.append(float(length) * epochs)
    return min(plans) if plans else None


def stride_of(one: Series) -> float:
    """Steps from one row to the next, mostly."""
    return float(np.median(np.diff(one.steps))) if len(one.steps) > 1 else 1.0


def resumed(run: Run) -> list[Said]:
    """Where the training went on from a checkpoint."""
    if not run.resumed:
        return []
    places = ", ".join(at(step) for step in run.resumed[:5])
    text = f"Resumed {len(run.resumed)} times" if len(run.resumed) > 1 else "Resumed once"
    evidence = "the step went back; what was logged twice is shown as it was the second time"
    return [Said("note", f"{text}, from {places}.", evidence)]
