# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a dashboard shows, as plain data: the report, the picture and W&B are built from this.

Imports nothing but the standard library. `PANELS` is in the order of reading; a panel says which
logged names (or which table) it draws, what they are, what healthy looks like, and what logs them.
"""

from __future__ import annotations

from collections.abc import Iterable
from fnmatch import fnmatchcase

from lightning_losses.dashboard.panels.calibration import CALIBRATION
from lightning_losses.dashboard.panels.confidence import CONFIDENCE
from lightning_losses.dashboard.panels.losses import FORECAST, LOSSES
from lightning_losses.dashboard.panels.panel import Line, Panel
from lightning_losses.dashboard.panels.representation import REPRESENTATION
from lightning_losses.dashboard.panels.steps import STEPS

__all__ = ["PANELS", "SECTIONS", "Line", "Panel", "matches", "unclaimed"]

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
    *CONFIDENCE,
    *CALIBRATION,
    *STEPS,
    *REPRESENTATION,
    *FORECAST,
)


def matches(panel: Panel, names: Iterable[str]) -> list[str]:
    """The logged names that a panel draws, in the order of its keys, each once."""
    names = sorted(names)
    found = [name for key in panel.keys for name in names if fnmatchcase(name, key)]
    return list(dict.fromkeys(found))


def unclaimed(names: Iterable[str]) -> list[str]:
    """Logged names that no panel draws."""
    names = list(names)
    claimed = {name for panel in PANELS for name in matches(panel, names)}
    return sorted(set(names) - claimed)
