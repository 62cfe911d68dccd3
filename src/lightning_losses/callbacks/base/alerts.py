# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""When a monitor speaks, and how: `Alarm` decides, `announce` logs, warns, alerts or stops."""

from __future__ import annotations

from typing import Literal, get_args

from lightning.pytorch import Trainer
from lightning.pytorch.loggers import WandbLogger
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn

Action = Literal["log", "warn", "alert", "stop"]
ACTIONS: tuple[Action, ...] = get_args(Action)


def announce(trainer: Trainer, action: Action, title: str, text: str) -> None:
    """Say ``text`` as loudly as ``action`` asks; each action includes those before it.

    ``log`` is a line on Lightning's info log, ``warn`` a Python warning, ``alert`` sends the text
    by ``run.alert`` of every Weights & Biases logger of the trainer (level ERROR for ``stop``), and
    ``stop`` ends the fit after the running batch. All ranks must come here with the same action:
    only rank zero speaks, but every rank stops.

    Args:
        title: what happened, under 64 characters, which is what Weights & Biases shows.
        text: what was measured, and what to do about it.
    """
    if action == "log":
        rank_zero_info(text)
        return
    rank_zero_warn(text)
    if action in ("alert", "stop") and trainer.is_global_zero:
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                level = "ERROR" if action == "stop" else "WARN"
                logger.experiment.alert(title=title[:63], text=text, level=level)
    if action == "stop":
        trainer.should_stop = True


def check_action(option: str, action: str) -> None:
    """Raises ValueError if ``action`` is none of the four words."""
    if action not in ACTIONS:
        raise ValueError(f"{option} is {action!r}; write one of {', '.join(ACTIONS)}.")


class Alarm:
    """Goes on after ``patience`` bad measurements in a row, off at a good one.

    Between bad and good lies a band that moves nothing that is on.
    """

    def __init__(self, patience: int) -> None:
        self.patience, self.on, self.count = patience, False, 0

    def reset(self) -> None:
        """Off, with nothing counted."""
        self.on, self.count = False, 0

    def update(self, *, bad: bool, good: bool) -> bool:
        """Take one measurement; True if it turns the alarm on."""
        if self.on:
            self.on = not good
            return False
        self.count = self.count + 1 if bad else 0
        if self.count < self.patience:
            return False
        self.on, self.count = True, 0
        return True
