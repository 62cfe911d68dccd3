# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a dashboard shows, as plain data: the report, the picture and W&B are built from this.

Imports nothing but the standard library. `PANELS` is in the order of reading; a panel says which
logged names (or which table) it draws, what they are, what healthy looks like, and what logs them.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from fnmatch import fnmatchcase

from lightning_losses.dashboard.panels.calibration import CALIBRATION
from lightning_losses.dashboard.panels.confidence import CONFIDENCE
from lightning_losses.dashboard.panels.losses import FORECAST, GROUPS, LOSSES
from lightning_losses.dashboard.panels.panel import Line, Panel
from lightning_losses.dashboard.panels.representation import REPRESENTATION
from lightning_losses.dashboard.panels.steps import STEPS

__all__ = ["OWN", "PANELS", "SECTIONS", "Line", "Panel", "matches", "own_panels", "unclaimed"]

OWN = "Your own metrics"

SECTIONS = {
    "Losses": "What is minimised, and which part of it does the work.",
    "Confidence": "How sure the model is, and whether that goes wrong.",
    "Calibration": "Whether the model is as often right as it says.",
    "Steps": "Whether the optimizer's steps and the logits stay where the arithmetic is safe.",
    "Attention and Representation": "What the layers inside have become.",
    "Forecast": "Where the loss will end if training goes on as planned.",
}

PANELS: tuple[Panel, ...] = (
    *LOSSES,
    *GROUPS,
    *CONFIDENCE,
    *CALIBRATION,
    *STEPS,
    *REPRESENTATION,
    *FORECAST,
)


def matches(panel: Panel, names: Iterable[str]) -> list[str]:
    """The logged names that a panel draws, in the order of its keys, each once."""
    names = sorted(names)
    if panel.own:  # whole names, in which a bracket is no pattern
        return [name for name in panel.keys if name in names]
    hits = [name for key in panel.keys for name in names if fnmatchcase(name, key)]
    return list(dict.fromkeys(hits))


def unclaimed(names: Iterable[str]) -> list[str]:
    """Logged names that no panel draws."""
    names = list(names)
    claimed = {name for panel in PANELS for name in matches(panel, names)}
    return sorted(set(names) - claimed)


# Of the user's names, those that span powers of ten; accuracies and rewards do not.
SPREADS = re.compile(r"loss|nll|perplexity|ppl|norm|grad|\blr\b|time", re.I)
STAGE = re.compile(r"(^|[/_.-])(train|training|val|valid|validation|test)(?=[/_.-])[/_.-]", re.I)


def own_panels(names: Iterable[str]) -> list[Panel]:
    """A panel for each of the metrics that no panel draws, its stages together."""
    groups: dict[str, list[str]] = {}
    for name in unclaimed(names):
        groups.setdefault(metric_of(name), []).append(name)
    return [
        Panel(
            name=f"own_{at}_{re.sub(r'[^A-Za-z0-9]+', '_', title)}",
            section=OWN,
            title=title,
            keys=tuple(sorted(own, key=lambda name: (not name.startswith("train"), name))),
            about="",
            healthy="",
            source="your own code",
            scale="auto" if SPREADS.search(title) else "linear",
            own=True,
        )
        for at, (title, own) in enumerate(sorted(groups.items()))
    ]


def metric_of(name: str) -> str:
    """A name without its stage and Lightning's suffix: accuracy for `val/accuracy`, `val_accuracy`.

    Learning rates, which LearningRateMonitor calls `lr-AdamW/pg1`, are one metric.
    """
    plain = re.sub(r"_(step|epoch)$", "", STAGE.sub(r"\1", name, count=1))
    return "lr" if re.match(r"lr-", plain) else plain
