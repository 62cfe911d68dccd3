# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How sure is the model while it trains? Its entropy, and an alert when that goes wrong."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.alerts import Action
from lightning_losses.callbacks.entropy_parts.alarms import EntropyRules, Judge, Mode
from lightning_losses.callbacks.entropy_parts.statistics import ValidationGap, gathered
from lightning_losses.callbacks.reading.events import (
    most_entropy,
    no_probabilities,
    row_entropy,
)
from lightning_losses.callbacks.reading.mean_prediction import (
    MEAN_PREDICTION,
    is_class_index,
    mean_prediction,
    prediction_sums,
)
from lightning_losses.record import LossRecord


class EntropyMonitor(ValidationGap):
    """Logs the entropy of the predictions in training steps, and alerts on what is not healthy.

    Logged every ``every_n_steps``, over the rows of all ranks that count:

    - ``entropy/mean``, the quantiles ``p10``, ``p50``, ``p90`` (nats), ``effective_classes`` (the
      mean of e^H), ``rows`` (how many this is about), ``alert`` (0 none, 1 warning, 2 critical),
      and, once the baseline is frozen, ``ratio``, the mean over the baseline: the larger of the
      very first mean and the median of the first ``baseline_measurements`` after ``warmup_steps``;
    - ``entropy/marginal`` (nats) and ``marginal_classes``, its exponential: entropy of the mean
      prediction of up to ``max_rows`` rows of each rank. Not where the vocabulary is sliced;
    - where targets are class indices, ``entropy/nll_gap``: NLL - H in nats, 0 for a calibrated
      model, more for one that is too sure; and ``entropy/val_nll_gap``, of a validation epoch;
    - where the step passes ``advantage``, ``entropy/token_covariance`` of it and log p: while it is
      positive, a policy's entropy falls (arXiv 2505.22617).

    Where the loss puts a sigmoid on each column (`bce`), a row's entropy and NLL are the means over
    its labels, each yes or no (log 2 nats at most), and there is no ``marginal``; where it makes no
    probabilities of the logits at all (`multiclass_hinge`), this is said once.

    Falling entropy is success in supervised training and collapse in policy training, hence modes:

    - ``supervised`` warns (1) when NLL - H exceeds ``warn_gap``, and is critical (2) when the mean
      prediction uses less than ``critical_share`` of the classes of the labels (without labels, of
      all classes, where rows are enough to tell). Training waits for an accelerator only for the
      baseline and once in 100 measurements; so there alerts come at the next validation or epoch
      end.
    - ``policy`` warns when the mean is below ``warn_ratio`` of its baseline, or beyond
      ``explosion_ratio`` times the smaller of those two means, and is critical when it is below
      ``critical_ratio`` or e^H below ``critical_classes``. So a collapse within the first steps is
      judged by what was there before them, and from ``warmup_steps`` on, without waiting for the
      median. What a policy lost before this training (a language model begins far below the log of
      its vocabulary) is no collapse. Reads the device at due steps.

    Each needs ``patience`` measurements in a row (2 validation epochs), fires once, and is armed
    again when the cause has gone back past its threshold by a fifth. In both modes rows with an
    entropy of NaN (logits of NaN or +inf) are critical, and left out of the numbers.

    A measurement without a row that counts logs the values of the one before it (zeros if there
    was none) with ``entropy/rows`` 0, because every rank must log the same keys; it moves neither
    baseline nor alerts. Of several ``compute_loss`` calls in a step the last is measured.

    Args:
        mode: ``supervised`` or ``policy``.
        every_n_steps: optimizer steps between measurements.
        warmup_steps: steps before baseline and alerts.
        baseline_measurements: measurements with rows in the baseline.
        patience: measurements in a row that an alert needs.
        warn_ratio: of the baseline. This and the next five are starting points, not proven.
        critical_ratio: of the baseline.
        critical_classes: effective classes; 1 is a model that has no choice left.
        explosion_ratio: of the baseline.
        warn_gap: of NLL - H, nats.
        critical_share: of the classes that predictions should use, a fraction.
        max_rows: rows of a rank in the mean prediction.
        on_warning: ``log``, ``warn``, ``alert`` (Weights & Biases) or ``stop``.
        on_critical: likewise.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: unknown mode or action, a count below 1, thresholds out of order.

    Examples:
        >>> monitor = EntropyMonitor(mode="policy", every_n_steps=5, on_critical="stop")
    """

    identity = ("mode", "every_n_steps", "name")

    def __init__(
        self,
        mode: Mode = "supervised",
        every_n_steps: int = 10,
        warmup_steps: int = 20,
        baseline_measurements: int = 10,
        patience: int = 5,
        warn_ratio: float = 0.5,
        critical_ratio: float = 0.2,
        critical_classes: float = 1.05,
        explosion_ratio: float = 2.0,
        warn_gap: float = 0.3,
        critical_share: float = 0.5,
        max_rows: int = 256,
        on_warning: Action = "warn",
        on_critical: Action = "alert",
        name: str = "entropy",
    ) -> None:
        super().__init__(every_n_steps)
        if mode not in ("supervised", "policy"):
            raise ValueError(f"Unknown mode {mode!r}; write mode=supervised or mode=policy.")
        counts = {"baseline_measurements": baseline_measurements, "patience": patience}
        for option, value in (counts | {"max_rows": max_rows}).items():
            if value < 1:
                raise ValueError(f"{option} must be at least 1, got {value}.")
        self.mode, self.name, self.supervised = mode, name, mode == "supervised"
        self.warmup_steps, self.max_rows = warmup_steps, max_rows
        rules = EntropyRules(
            mode, patience, warn_ratio, critical_ratio, critical_classes, explosion_ratio,
            warn_gap, critical_share, name,
        )  # fmt: skip
        self.judge = Judge(rules, baseline_measurements, on_warning, on_critical)
        self._labelled = False  # as of the last step; log p cannot be had without a target
        self._last: dict[str, Tensor | float] = {}
        self._marginal: tuple[Tensor, Tensor | None] | None = None

    @property
    def baseline(self) -> float | None:
        """Nats; None until it is frozen."""
        return None if self.judge.baseline.value is None else self.judge.baseline.high

    # -- measuring ---------------------------------------------------------------------------------

    def start_measuring(self, module: LightningModule) -> None:
        """Ask for entropies, and for log p once targets are known to be classes."""
        also = ("log_prob",) if self._labelled else ()
        self.watches = ("entropy", "advantage", *MEAN_PREDICTION, *also)  # type: ignore[misc]
        super().start_measuring(module)

    def on_before_backward(
        self, trainer: Trainer, pl_module: LightningModule, loss: Tensor
    ) -> None:
        """Take the mean prediction while the head is still the one that predicted."""
        record = getattr(pl_module, "loss_record", None)
        if self.due and isinstance(record, LossRecord) and record.total is not self._seen:
            self._marginal = record.total, prediction_sums(record, self.max_rows)

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log one record's entropy; on several ranks every rank must come here."""
        kept, self._marginal = self._marginal, None
        asked, self._labelled = self._labelled, is_class_index(record.captured.get("target"))
        entropy = row_entropy(record)
        if entropy is None:
            if self._labelled or not asked:  # else it was refused with log p, and comes next time
                self.warn_once(no_probabilities(record, "no entropy to log"))
            return
        values, rows, bad = gathered(trainer, record, entropy, self.supervised)
        share = torch.full_like(rows, torch.nan)
        same = kept is not None and kept[0] is record.total
        sums = kept[1] if kept and same else prediction_sums(record, self.max_rows)
        if sums is not None:
            of = mean_prediction(sums, trainer, self._labelled and self.supervised)
            values |= {"marginal": of.entropy, "marginal_classes": of.entropy.exp()}
            share = of.share.to(rows)
        for key, value in values.items():  # one without a row that counts is the one before it
            before = self._last.get(key, 0.0)
            if isinstance(before, float):  # filled, not copied: a copy waits for the device
                before = value.new_full((), before)
            values[key] = torch.where((rows > 0) & value.isfinite(), value, before)
        self._last = dict(values)
        self.judge.rules.most = most_entropy(record)
        self.judge.baseline.begin(torch.where(rows > 0, values["mean"], torch.nan))
        if self._measured_step >= self.warmup_steps:
            self.judge.baseline.add(torch.where(rows > 0, values["mean"], torch.nan))
            gap = values.get("nll_gap", torch.full_like(share, torch.nan))
            classes = values["effective_classes"]
            self.judge.add(self._measured_step, values["mean"], classes, rows, share, gap)
        self.judge.bad = self.judge.bad + bad
        free = entropy.device.type == "cpu"  # asking a CPU costs nothing
        if self.mode == "policy" or free or self.judge.waiting.full:
            self.judge.read(trainer, self._measured_step)
        if self.baseline is not None:
            values["ratio"] = values["mean"] / self.judge.baseline.high
        values |= {"rows": rows, "alert": (2.0 * (bad > 0)).clamp(min=self.judge.rules.tier)}
        self.publish(trainer, {f"{self.name}/{k}": v for k, v in values.items()})

    def reset(self) -> None:
        """A new training has a baseline of its own."""
        super().reset()
        self.judge.reset()
        self._labelled, self._last, self._marginal = False, {}, None

    # -- when waiting for the device costs nothing ------------------------------------------------

    def catch_up(self, trainer: Trainer) -> None:
        """Judge what was measured, too."""
        super().catch_up(trainer)
        self.judge.read(trainer, self._measured_step)

    def judge_gap(self, trainer: Trainer, gap: float) -> None:
        """Speak of a validation epoch."""
        self.judge.say(trainer, self.judge.rules.judge_validation(trainer.current_epoch, gap))

    # -- resuming ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next measurement depends on, as plain numbers."""
        last = {key: float(value) for key, value in self._last.items()}
        return self.judge.state_dict() | {"last": last, "labelled": self._labelled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.judge.load_state_dict(state_dict)
        self._last, self._labelled = dict(state_dict["last"]), state_dict["labelled"]
