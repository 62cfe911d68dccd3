# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the runs of a comparison ended at, in one loss that all of them measure alike."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from lightning_losses.dashboard.report.ending import ending
from lightning_losses.dashboard.runs.run import Run, Series

#: Of the names that most runs have the first is taken: of data not trained on, and a likelihood
#: before a loss, which is another one where the objective is.
NAMES = (r"calibration/test/nll", r"calibration/val/nll", r"test.loss", r"val\w*.loss")
TRAINING = r"train.loss(_epoch)?|loss"
LAST = 0.05  # of a training loss, the part whose mean is its end: one batch says little


class FinalLosses(NamedTuple):
    """The loss that was chosen, and what is known of it."""

    name: str
    values: dict[int, float]  # by the run's place; of those that came to an end
    left_out: list[str]  # runs that did not, with the reason
    of_an_objective: bool  # other objectives have it on other scales


def final_losses(runs: Sequence[Run]) -> FinalLosses | None:
    """The final losses of the runs; None where no two runs share one."""
    best: list[tuple[int, str, Series]] = []
    for pattern in (*NAMES, TRAINING):
        found = [named(run, pattern) for run in runs]
        here = [(at, *one) for at, one in enumerate(found) if one is not None]
        if len(here) > len(best):
            best = here
    if len(best) < 2:
        return None
    name = best[0][1]
    values, left_out = {}, []
    for at, _, one in best:
        bad = [said.text for said in ending(runs[at]) if said.tone == "bad"]
        if bad or not len(one.values):
            left_out.append(f"{runs[at].name} ({bad[0] if bad else f'{name} is not finite'})")
            continue
        keep = max(1, int(LAST * len(one.values))) if re.fullmatch(TRAINING, name) else 1
        values[at] = float(one.values[-keep:].mean())
    return FinalLosses(name, values, left_out, not name.endswith("nll"))


def named(run: Run, pattern: str) -> tuple[str, Series] | None:
    """The first of a run's curves whose name is of this form."""
    names = sorted(name for name in run.series if re.fullmatch(pattern, name))
    return (names[0], run.series[names[0]]) if names else None


def of_losses(settings: Sequence[str]) -> list[str]:
    """The settings that change what is minimised."""
    return [key for key in settings if re.match(r"(loss|balance|weighting)(\.|$)", key)]


def is_seed(key: str) -> bool:
    """Whether a setting only says which of the runs of a kind this is."""
    return re.fullmatch(r"(.*_)?seed(_.*)?", key.rsplit(".", 1)[-1].lower()) is not None


def varied(runs: Sequence[Run], settings: Sequence[str]) -> list[str]:
    """Which of the settings differ among some runs."""
    return [key for key in settings if len({run.config.get(key) for run in runs}) > 1]


def arms(
    runs: Mapping[int, Run], settings: Sequence[str]
) -> dict[tuple[tuple[str, str], ...], list[int]]:
    """The places of runs that are the same in some settings, by what these are there."""
    found: dict[tuple[tuple[str, str], ...], list[int]] = {}
    for at, run in runs.items():
        key = tuple((name, str(run.config.get(name, ""))) for name in settings)
        found.setdefault(key, []).append(at)
    return found
