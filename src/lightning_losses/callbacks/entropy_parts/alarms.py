# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""When entropy is no longer healthy, in supervised and in policy training, and who says so when.

`EntropyRules` judges one `Reading` against a `Baseline`; `Judge` holds readings until the device
may be asked for them, then has them judged and speaks.
"""

from __future__ import annotations

from math import isnan
from statistics import median
from typing import Any, Literal, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.base.alerts import Action, Alarm, announce, check_action
from lightning_losses.callbacks.base.deferred_reads import DeferredReads

Mode = Literal["supervised", "policy"]

#: Validation epochs in a row that an alert on them needs: each is a mean over many rows.
EPOCHS = 2


class Reading(NamedTuple):
    """One measurement; NaN where something could not be measured."""

    step: int
    mean: float
    """Entropy in nats."""
    classes: float
    """Mean of e^H."""
    rows: float
    share: float
    """Effective classes of the mean prediction over those that there should be."""
    gap: float
    """NLL - H in nats."""


class Alert(NamedTuple):
    """An alarm that went off."""

    tier: int
    """1 warning, 2 critical."""
    title: str
    text: str


class Baseline:
    """What a training began with: its first mean, and the median of the first few after warm-up.

    The median alone would take a collapse within the first steps for what is usual, and the first
    mean alone one odd batch: what falls is compared with the larger of them (`high`), what rises
    with the smaller (`low`). The device is read when the median is full, or when these are asked.
    """

    def __init__(self, measurements: int) -> None:
        self.measurements = measurements
        self.value: float | None = None
        self.first: Tensor | float | None = None
        self.means: list[Tensor | float] = []

    @property
    def known(self) -> list[float]:
        """The first mean and the median, as far as there are any."""
        both = (None if one is None else float(one) for one in (self.first, self.value))
        return [one for one in both if one is not None and not isnan(one)]

    @property
    def high(self) -> float:
        """The larger; not 0, for a model that began without any entropy has no ratio to it."""
        return max([*self.known, 1e-6])

    @property
    def low(self) -> float:
        """The smaller, likewise."""
        return max(min(self.known, default=0.0), 1e-6)

    def begin(self, mean: Tensor) -> None:
        """Take every mean, also within the warm-up: the first that is not NaN stays."""
        if self.value is None:
            first = torch.nan if self.first is None else self.first
            if not isinstance(first, Tensor):  # filled, not copied: a copy waits for the device
                first = mean.new_full((), first)
            self.first = torch.where(first.isnan(), mean, first)

    def add(self, mean: Tensor) -> None:
        """Add to it until it is full; NaN, which is no row on any rank, adds nothing."""
        if self.value is not None:
            return
        self.means.append(mean)
        if len(self.means) >= self.measurements:
            known = [value for value in map(float, self.means) if not isnan(value)]
            self.means = list(known)
            if len(known) == self.measurements:
                self.value, self.means = median(known), []
                self.first = None if self.first is None else float(self.first)


class EntropyRules:
    """The alarms of one mode, with patience and hysteresis; see `EntropyMonitor`."""

    def __init__(
        self,
        mode: Mode,
        patience: int,
        warn_ratio: float,
        critical_ratio: float,
        critical_classes: float,
        explosion_ratio: float,
        gap: float,
        share: float,
        name: str,
    ) -> None:
        if not 0 <= critical_ratio <= warn_ratio <= 1 <= explosion_ratio:
            raise ValueError(
                "The thresholds must be 0 <= critical_ratio <= warn_ratio <= 1 <= explosion_ratio, "
                f"got {critical_ratio}, {warn_ratio}, {explosion_ratio}; write 0.2, 0.5, 2."
            )
        if not (gap > 0 and 0 <= share <= 1):
            raise ValueError(
                "The thresholds must be warn_gap > 0 and critical_share in [0, 1], got "
                f"{gap} and {share}; write 0.3, 0.5."
            )
        self.mode, self.patience, self.name = mode, patience, name
        self.warn_ratio, self.critical_ratio = warn_ratio, critical_ratio
        self.critical_classes, self.explosion_ratio = critical_classes, explosion_ratio
        self.gap, self.share = gap, share
        self.most: float | None = None  # nats; None where the number of classes is not known
        keys = ("critical", "collapse", "explosion") if mode == "policy" else ("critical", "gap")
        self.alarms = {key: Alarm(patience) for key in keys}
        if mode == "supervised":
            self.alarms["validation gap"] = Alarm(EPOCHS)

    @property
    def tier(self) -> int:
        """0 none, 1 warning, 2 critical."""
        return 2 if self.alarms["critical"].on else int(any(a.on for a in self.alarms.values()))

    def reset(self) -> None:
        """All alarms off."""
        for alarm in self.alarms.values():
            alarm.reset()

    def judge(self, reading: Reading, baseline: Baseline) -> Alert | None:
        """Move the alarms; the gravest that went off."""
        return (self._policy if self.mode == "policy" else self._supervised)(reading, baseline)

    def judge_validation(self, epoch: int, gap: float) -> Alert | None:
        """Move the alarm on the gap of a validation epoch; None in policy mode."""
        alarm = self.alarms.get("validation gap")
        if alarm is None or not alarm.update(bad=gap > self.gap, good=gap <= self.gap / 1.2):
            return None
        return self._gap_alert(f"validation epoch {epoch}", f"val_nll_gap is {gap:.3g}", EPOCHS)

    def _policy(self, reading: Reading, baseline: Baseline) -> Alert | None:
        mean, classes = reading.mean, reading.classes
        ratio, rise = (mean / at if baseline.known else 1.0 for at in (baseline.high, baseline.low))
        floor = 1 + 1.2 * (self.critical_classes - 1)
        fired = {
            "critical": self.alarms["critical"].update(
                bad=ratio < self.critical_ratio or classes < self.critical_classes,
                good=ratio >= 1.2 * self.critical_ratio and classes >= floor,
            ),
            "collapse": self.alarms["collapse"].update(
                bad=ratio < self.warn_ratio, good=ratio >= min(1.2 * self.warn_ratio, 1.0)
            ),
            "explosion": self.alarms["explosion"].update(
                bad=rise > self.explosion_ratio,
                good=rise <= max(self.explosion_ratio / 1.2, 1.0),
            ),
        }
        gravest = next((key for key, on in fired.items() if on), None)
        if gravest is None:
            return None
        what = "exploded" if gravest == "explosion" else "collapsed"
        if gravest == "critical":
            what += " critically"
        times = rise if gravest == "explosion" else ratio
        than = f", {times:.2f} of its baseline" if baseline.known else ""
        than += f" (at most {self.most:.3g} are possible)" if self.most else ""
        return Alert(
            2 if gravest == "critical" else 1,
            f"Policy entropy has {what}",
            f"EntropyMonitor: policy entropy has {what} at step {reading.step}: mean "
            f"{mean:.4g} nats{than}, {classes:.3g} effective classes, for {self.patience} "
            f"measurements in a row. See {self.name}/mean and the rewards before going on.",
        )

    def _supervised(self, reading: Reading, baseline: Baseline) -> Alert | None:
        share, gap = reading.share, reading.gap
        few = not isnan(share) and self.alarms["critical"].update(
            bad=share < self.share, good=share >= min(1.2 * self.share, 1.0)
        )
        wide = not isnan(gap) and self.alarms["gap"].update(
            bad=gap > self.gap, good=gap <= self.gap / 1.2
        )
        if few:
            return Alert(
                2,
                "Predictions use few of the classes",
                f"EntropyMonitor: at step {reading.step} the mean prediction uses {share:.2f} of "
                f"the classes that it should, for {self.patience} measurements in a row: the "
                f"model predicts few classes whatever the input. See {self.name}/marginal_classes; "
                "a lower learning rate, or a term that keeps classes in use, may help.",
            )
        where = f"step {reading.step}"
        return self._gap_alert(where, f"nll_gap is {gap:.3g}", self.patience) if wide else None

    def _gap_alert(self, where: str, what: str, times: int) -> Alert:
        return Alert(
            1,
            "Predictions are overconfident",
            f"EntropyMonitor: at {where} {self.name}/{what} nats, above {self.gap:g} for {times} "
            "in a row: the model is surer than it is right. Compare training with validation, and "
            "look for wrong labels; stopping here, or label smoothing, may help.",
        )

    def state_dict(self) -> dict[str, Any]:
        """Which alarms are on, and what they count."""
        return {key: [alarm.on, alarm.count] for key, alarm in self.alarms.items()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; a new mode has new alarms."""
        for key in self.alarms.keys() & state_dict.keys():
            self.alarms[key].on, self.alarms[key].count = state_dict[key]


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
        self.waiting: DeferredReads[int] = DeferredReads()
        self.bad: Tensor | int = 0  # rows with NaN that nobody was told of yet
        self.told = False

    def reset(self) -> None:
        """Begin as in a new training."""
        self.baseline = Baseline(self.baseline.measurements)
        self.rules.reset()
        self.waiting, self.bad, self.told = DeferredReads(), 0, False

    def add(self, step: int, *values: Tensor) -> None:
        """A measurement: the fields of `Reading` after the first, 0-dim each."""
        like = values[0]
        self.waiting.put(step, torch.stack([value.to(like) for value in values]))

    def read(self, trainer: Trainer, step: int) -> None:
        """Judge what waits, and tell of rows with NaN. Waits for the device."""
        for measured, values in self.waiting.read():
            reading = Reading(measured, *values)
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
            "first": None if self.baseline.first is None else float(self.baseline.first),
            "means": [float(mean) for mean in self.baseline.means],
            "alarms": self.rules.state_dict(),
            "told": self.told,
            "waiting": self.waiting.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.baseline.value, self.baseline.means = state_dict["baseline"], state_dict["means"]
        self.baseline.first = state_dict.get("first")
        self.rules.load_state_dict(state_dict["alarms"])
        self.told = state_dict["told"]
        self.waiting.load_state_dict(state_dict["waiting"])
