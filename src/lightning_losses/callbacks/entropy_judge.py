# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Measurements of entropy that wait to be judged, and what is said of them."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.announce import Action, announce, check_action
from lightning_losses.callbacks.entropy_rules import Alert, Baseline, EntropyRules, Reading

#: Measurements that wait on an accelerator for a moment when reading them is free.
MOST_WAITING = 100


class Judge:
    """Keeps measurements on the device until they are read, then moves the alarms and speaks.

    Args:
        rules: when entropy is not healthy.
        baseline_measurements: see `Baseline`.
        on_warning: what a warning does.
        on_critical: what a critical alert does.
    """

    def __init__(
        self,
        rules: EntropyRules,
        baseline_measurements: int,
        on_warning: Action,
        on_critical: Action,
    ) -> None:
        check_action("on_warning", on_warning)
        check_action("on_critical", on_critical)
        self.rules, self.baseline = rules, Baseline(baseline_measurements)
        self.actions: dict[int, Action] = {1: on_warning, 2: on_critical}
        self.waiting: list[tuple[int, Tensor]] = []
        self.bad: Tensor | int = 0  # rows with NaN that nobody was told of yet
        self.told = False

    @property
    def full(self) -> bool:
        """Whether so many wait that it is time to read them at any cost."""
        return len(self.waiting) >= MOST_WAITING

    def forget(self) -> None:
        """Begin as in a new training."""
        self.baseline = Baseline(self.baseline.measurements)
        self.rules.forget()
        self.waiting, self.bad, self.told = [], 0, False

    def add(self, step: int, *values: Tensor) -> None:
        """A measurement: the fields of `Reading` after the first, 0-dim each."""
        like = values[0]
        self.waiting.append((step, torch.stack([value.to(like) for value in values])))

    def read(self, trainer: Trainer, step: int) -> None:
        """Judge what waits, and tell of rows with NaN. Waits for the device."""
        waiting, self.waiting = self.waiting, []
        if waiting:
            numbers = torch.stack([values for _, values in waiting]).tolist()
            for (at, _), values in zip(waiting, numbers, strict=True):
                reading = Reading(at, *values)
                if reading.rows:
                    self.say(trainer, self.rules.judge(reading, self.baseline))
        bad, self.bad = int(self.bad), 0
        if bad and not self.told:
            text = (
                f"EntropyMonitor: {bad} rows had an entropy of NaN by step {step}; "
                f"{self.rules.name}/* leaves them out. Look for logits of NaN or inf."
            )
            self.say(trainer, Alert(2, "Entropy is NaN", text))
        self.told = bool(bad)

    def say(self, trainer: Trainer, alert: Alert | None) -> None:
        """Do what the tier of an alert asks for."""
        if alert is not None:
            announce(trainer, self.actions[alert.tier], alert.title, alert.text)

    def state_dict(self) -> dict[str, Any]:
        """As plain numbers."""
        return {
            "baseline": self.baseline.value,
            "means": [float(mean) for mean in self.baseline.means],
            "alarms": self.rules.state_dict(),
            "told": self.told,
            "waiting": [[step, values.tolist()] for step, values in self.waiting],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.baseline.value, self.baseline.means = state_dict["baseline"], state_dict["means"]
        self.rules.load_state_dict(state_dict["alarms"])
        self.told = state_dict["told"]
        self.waiting = [(step, torch.tensor(values)) for step, values in state_dict["waiting"]]
