# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How sure is the model while it trains? Its entropy, and an alert when that goes wrong."""

from __future__ import annotations

from math import isnan
from statistics import median
from typing import Any, Literal

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lightning_losses.callbacks.alarm import Alarm
from lightning_losses.callbacks.entropy_sketch import NAMES, SKETCH, merge, sketch
from lightning_losses.callbacks.monitor import Monitor
from lightning_losses.record import LossRecord


class EntropyMonitor(Monitor):
    """Logs the entropy of the predictions in training steps, and alerts on what is not healthy.

    Logged every ``every_n_steps``, over the rows of all ranks that count: ``entropy/mean``, the
    quantiles ``entropy/p10``, ``p50``, ``p90`` (nats), ``entropy/effective_classes`` (the mean of
    e^H), ``entropy/rows`` (how many rows this is about), ``entropy/alert`` (0 none, 1 warning,
    2 critical), and, once the baseline is frozen, ``entropy/ratio``, the mean over the baseline.
    The baseline is the median of the first ``baseline_measurements`` means after ``warmup_steps``.

    Falling entropy is success in supervised training and collapse in policy training, hence modes:

    - ``supervised`` alerts (2) only on rows whose entropy is NaN (logits of NaN or +inf), which are
      left out of the numbers. Training waits for the device only once, for the baseline; so on an
      accelerator the Python warning comes at the next validation or epoch end.
    - ``policy`` alerts as well when the mean stays below ``warn_ratio`` of its baseline (1) or
      below ``critical_ratio`` (2), when e^H stays below ``critical_classes`` (2), and when entropy
      explodes beyond ``explosion_ratio`` times the baseline (1), each for ``patience`` measurements
      in a row. One warning a tier; it is armed again when the cause has gone back past its
      threshold by a fifth. Reads the device at due steps.

    A measurement without a row that counts logs the values of the one before it (zeros if there
    was none) with ``entropy/rows`` 0, because every rank must log the same keys; it moves neither
    baseline nor alerts. Of several ``compute_loss`` calls in a step the last is measured.

    Args:
        mode: ``supervised`` or ``policy``.
        every_n_steps: optimizer steps between measurements.
        warmup_steps: steps before baseline and alerts.
        baseline_measurements: measurements with rows in the baseline.
        patience: measurements in a row that an alert needs.
        warn_ratio: of the baseline. This and the next three are starting points, not proven.
        critical_ratio: of the baseline.
        critical_classes: effective classes; 1 is a model that has no choice left.
        explosion_ratio: of the baseline.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: unknown mode, a count below 1, thresholds out of order.
    """

    watches = ("entropy",)

    def __init__(
        self,
        mode: Literal["supervised", "policy"] = "supervised",
        every_n_steps: int = 10,
        warmup_steps: int = 20,
        baseline_measurements: int = 10,
        patience: int = 5,
        warn_ratio: float = 0.5,
        critical_ratio: float = 0.2,
        critical_classes: float = 1.05,
        explosion_ratio: float = 2.0,
        name: str = "entropy",
    ) -> None:
        super().__init__(every_n_steps)
        if mode not in ("supervised", "policy"):
            raise ValueError(f"Unknown mode {mode!r}; write mode=supervised or mode=policy.")
        for option, value in (
            ("baseline_measurements", baseline_measurements),
            ("patience", patience),
        ):
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        if not 0 <= critical_ratio <= warn_ratio <= 1 <= explosion_ratio:
            raise ValueError(
                "The thresholds must be 0 <= critical_ratio <= warn_ratio <= 1 <= explosion_ratio, "
                f"got {critical_ratio}, {warn_ratio}, {explosion_ratio}; write 0.2, 0.5, 2."
            )
        self.mode, self.name, self.patience = mode, name, patience
        self.warmup_steps, self.baseline_measurements = warmup_steps, baseline_measurements
        self.warn_ratio, self.critical_ratio = warn_ratio, critical_ratio
        self.critical_classes, self.explosion_ratio = critical_classes, explosion_ratio
        self.baseline: float | None = None
        self.alarms = {key: Alarm(patience) for key in ("critical", "collapse", "explosion")}
        self._means: list[Tensor | float] = []  # until the baseline is frozen
        self._last: Tensor | list[float] | None = None
        self._bad: Tensor | int = 0  # rows with NaN that nobody was told of yet
        self._told = False

    @property
    def state_key(self) -> str:
        """Unique for the arguments, so that two monitors of one class can live together."""
        return self._generate_state_key(
            mode=self.mode, every_n_steps=self.every_n_steps, name=self.name
        )

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log one record's entropy; on several ranks every rank must come here."""
        entropy = record.stats.entropy
        if entropy is None:
            self.say_once(
                "this step has no class logits, so there is no entropy to log. Pass logits (N, C), "
                "or hidden (N, D) and head_weight (C, D), to compute_loss."
            )
            return
        packed = sketch(entropy, record.stats.valid, SKETCH if trainer.world_size > 1 else None)
        gathered = trainer.strategy.all_gather(packed)
        values, rows, bad = merge(gathered.reshape(-1, len(packed)))
        if self._last is None:
            self._last = torch.zeros_like(values)
        before = values.new_tensor(self._last) if isinstance(self._last, list) else self._last
        self._last = values = torch.where(rows > 0, values, before)
        self._collect(torch.where(rows > 0, values[0], torch.nan))
        logged = dict(zip(NAMES, values.unbind(), strict=True)) | {"rows": rows}
        if self.baseline is not None:
            logged["ratio"] = values[0] / self._divisor
        logged["alert"] = 2.0 * (bad > 0)
        self._bad = self._bad + bad
        if self.mode == "policy":
            mean, classes, count = torch.stack([*values[:2], rows]).tolist()
            tier = self._judge(mean, classes) if count else self._tier
            logged["alert"] = logged["alert"].clamp(min=tier)
        if self.mode == "policy" or entropy.device.type == "cpu":  # asking a CPU is free
            self._tell_of_nan()
        self.publish(
            {f"{self.name}/{key}": value for key, value in logged.items()}, max(record.rows, 1)
        )

    def on_validation_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """A moment when waiting for the device costs nothing."""
        self._tell_of_nan()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Another."""
        self._tell_of_nan()

    # -- the baseline and the alerts ---------------------------------------------------------------

    @property
    def _divisor(self) -> float:
        """A model that began without any entropy has no ratio to it."""
        return max(self.baseline or 0.0, 1e-6)

    @property
    def _tier(self) -> int:
        return 2 if self.alarms["critical"].on else int(any(a.on for a in self.alarms.values()))

    def _collect(self, mean: Tensor) -> None:
        """Add to the baseline; NaN, which is no row that counts on any rank, is not added."""
        if self.baseline is not None or self._measured_step < self.warmup_steps:
            return
        self._means.append(mean)
        if len(self._means) >= self.baseline_measurements:
            found = [value for value in map(float, self._means) if not isnan(value)]
            self._means = list(found)
            if len(found) == self.baseline_measurements:
                self.baseline, self._means = median(found), []

    def _judge(self, mean: float, classes: float) -> int:
        """Move the alarms, warn of the gravest that went off, and return the tier."""
        if self._measured_step < self.warmup_steps:
            return 0
        ratio = 1.0 if self.baseline is None else mean / self._divisor
        floor = 1 + 1.2 * (self.critical_classes - 1)
        rang = {
            "critical": self.alarms["critical"].update(
                bad=ratio < self.critical_ratio or classes < self.critical_classes,
                good=ratio >= 1.2 * self.critical_ratio and classes >= floor,
            ),
            "collapse": self.alarms["collapse"].update(
                bad=ratio < self.warn_ratio, good=ratio >= min(1.2 * self.warn_ratio, 1.0)
            ),
            "explosion": self.alarms["explosion"].update(
                bad=ratio > self.explosion_ratio,
                good=ratio <= max(self.explosion_ratio / 1.2, 1.0),
            ),
        }
        if fired := next((key for key, value in rang.items() if value), None):
            what = "exploded" if fired == "explosion" else "collapsed"
            if fired == "critical":
                what += " critically"
            than = "" if self.baseline is None else f", {ratio:.2f} of its baseline"
            rank_zero_warn(
                f"EntropyMonitor: policy entropy has {what} at step {self._measured_step}: mean "
                f"{mean:.4g} nats{than}, {classes:.3g} effective classes, for {self.patience} "
                f"measurements in a row. See {self.name}/mean and the rewards before going on."
            )
        return self._tier

    def _tell_of_nan(self) -> None:
        bad = int(self._bad)
        self._bad = 0
        if bad and not self._told:
            rank_zero_warn(
                f"EntropyMonitor: {bad} rows had an entropy of NaN by step "
                f"{self._measured_step}; {self.name}/* leaves them out."
            )
        self._told = bool(bad)

    # -- resuming ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next measurement depends on, as plain numbers."""
        last = self._last
        return {
            "baseline": self.baseline,
            "means": [float(mean) for mean in self._means],
            "last": last.tolist() if isinstance(last, Tensor) else last,
            "alarms": {key: [alarm.on, alarm.count] for key, alarm in self.alarms.items()},
            "told": self._told,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.baseline, self._last = state_dict["baseline"], state_dict["last"]
        self._means, self._told = list(state_dict["means"]), state_dict["told"]
        for key, (on, count) in state_dict["alarms"].items():
            self.alarms[key].on, self.alarms[key].count = on, count
