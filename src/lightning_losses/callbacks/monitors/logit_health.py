# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How large do the logits grow, and in how many rows has rounding left a single class?"""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.alerts import Action, Alarm, announce, check_action
from lightning_losses.callbacks.base.deferred_reads import DeferredReads
from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.reading.events import no_probabilities
from lightning_losses.callbacks.reading.gather import stacked
from lightning_losses.callbacks.reading.training_plan import planned_steps
from lightning_losses.metrics.training_curve.onset import FEWEST, onset_step
from lightning_losses.record import LossRecord
from lightning_losses.softmax import SoftmaxStats

#: What a rank tells the others: sums of these, then maxima of these.
SUMS = ("rows", "bad", "logsumexp", "collapsed", "zero_terms")
MAXIMA = ("logsumexp", "size", "max_logit")

#: Logits without softmax that have a size to look at; (N,) of no head may be a regression.
SCORES = {("sigmoid", 1), ("sigmoid", 2), ("none", 2)}


class LogitHealthMonitor(Monitor):
    """Logs the size of the logits and softmax collapse in training steps, and says where they lead.

    Logged every ``every_n_steps``, over the rows of all ranks that count:

    - ``logit_health/logsumexp_mean`` and ``logsumexp_max``: log Z, the log of the softmax's
      normaliser. The loss does not fix it, so it may drift until rounding hurts (the cure is
      ``loss=logsumexp_penalty``, or weight decay on the head; arXiv 2309.14322);
    - ``logit_health/max_logit``: the largest logit, as log Z + log of the confidence, so that no
      logits are needed (within rounding of log Z);
    - ``logit_health/softmax_collapse``: the fraction of rows whose sum of exp(z - max z), in the
      dtype that losses compute in (float32, float64 for float64), is exactly 1, that is, whose
      confidence, one over that sum, is exactly 1 (arXiv 2501.04697). Labels play no part: a row
      that is surely wrong counts;
    - ``logit_health/zero_terms``, where targets are classes: the fraction of rows whose
      cross-entropy is exactly 0. They send no gradient;
    - ``logit_health/onset_step``, while the largest \\|log Z\\| grows steadily: when it will reach
      ``threshold``, at most as far ahead as the window is long; see `onset_step` for when no answer
      is given. Where the growth ends, so does the curve, and the metric is withdrawn. At 128,
      logits in bfloat16 are rounded to whole nats.

    Where the loss takes no softmax over columns (`bce`, `multiclass_hinge`), there is
    ``max_logit``, then the largest \\|logit\\|, and its ``onset_step`` alone.

    It speaks when the collapsed fraction is at least ``collapse_share``, when the onset lies within
    the planned training, each ``patience`` measurements in a row, and when logits are NaN or
    infinite (such rows are left out of the numbers). Training waits for an accelerator once in 100
    measurements at most; there onset and alerts come at the next validation or epoch end.

    A measurement without a row that counts logs the values of the one before it (zeros if there
    was none), because every rank must log the same keys.

    Args:
        every_n_steps: optimizer steps between measurements.
        window: measurements that the onset is extrapolated from, at least 8.
        threshold: of \\|log Z\\|, for ``onset_step``.
        collapse_share: fraction of collapsed rows that is announced, in (0, 1]. A model that fits
            easy data well collapses on half of it and goes on learning from the rest; at 0.9 there
            is hardly anything left that sends a gradient.
        patience: measurements in a row that an alert needs.
        action: what an alert does: ``log``, ``warn``, ``alert`` (W&B) or ``stop``.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: a count too small, a share or threshold out of range, an unknown action.

    Examples:
        >>> monitor = LogitHealthMonitor(every_n_steps=10, threshold=128.0, action="alert")
    """

    watches = ("logsumexp", "confidence", "log_prob", "logits")
    identity = ("every_n_steps", "name")

    def __init__(
        self,
        every_n_steps: int = 10,
        window: int = 20,
        threshold: float = 128.0,
        collapse_share: float = 0.9,
        patience: int = 3,
        action: Action = "warn",
        name: str = "logit_health",
    ) -> None:
        super().__init__(every_n_steps)
        if window < FEWEST or patience < 1:
            raise ValueError(
                f"window must be at least {FEWEST} and patience at least 1, got {window} and "
                f"{patience}."
            )
        if not (threshold > 0 and 0 < collapse_share <= 1):
            raise ValueError(
                "threshold must be positive and collapse_share in (0, 1], got "
                f"{threshold} and {collapse_share}; write 128 and 0.9."
            )
        check_action("action", action)
        self.window, self.threshold, self.action = window, threshold, action
        self.collapse_share, self.name = collapse_share, name
        self.alarms = {"collapse": Alarm(patience), "onset": Alarm(patience), "bad": Alarm(1)}
        self.onset: float | None = None
        self._sizes: list[tuple[int, float]] = []
        self._last: dict[str, Tensor | float] = {}
        self._waiting: DeferredReads[int] = DeferredReads()

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log one record's logits; on several ranks every rank must come here."""
        softmax = record.head == "softmax"
        logits = record.captured.get("logits")
        if softmax and record.stats.logsumexp is not None:
            told = tell(record.stats)
        elif isinstance(logits, Tensor) and (record.head, logits.ndim) in SCORES:
            told = tell_scores(logits, record.stats.valid)
        else:
            self.warn_once(no_probabilities(record, "nothing to look at"))
            return
        told = stacked(trainer, told)
        sums = dict(zip(SUMS, told[:, : len(SUMS)].sum(0), strict=True))
        maxima = dict(zip(MAXIMA, told[:, len(SUMS) :].amax(0), strict=True))
        rows = sums["rows"].clamp(min=1)
        values = {"max_logit": maxima["max_logit"]}
        if softmax:
            values["logsumexp_mean"] = sums["logsumexp"] / rows
            values["logsumexp_max"] = maxima["logsumexp"]
            values["softmax_collapse"] = sums["collapsed"] / rows
        if softmax and record.stats.log_prob is not None:
            values["zero_terms"] = sums["zero_terms"] / rows
        for key, value in values.items():  # one without a row that counts is the one before it
            before = self._last.get(key, 0.0)
            if not isinstance(before, Tensor):  # filled, not copied: a copy waits for the device
                before = value.new_full((), before)
            values[key] = torch.where(sums["rows"] > 0, value, before)
        self._last = dict(values)
        reading = (sums["rows"], sums["bad"], sums["collapsed"] / rows, maxima["size"])
        self._judge(trainer, self._waiting.add(self._measured_step, torch.stack(reading)))
        if self.onset is None:
            self.withdraw(trainer, f"{self.name}/onset_step")
        else:
            values["onset_step"] = torch.tensor(self.onset)
        self.publish(trainer, {f"{self.name}/{k}": v for k, v in values.items()})

    def reset(self) -> None:
        """A new training has logits of its own."""
        super().reset()
        self.onset, self._sizes, self._last, self._waiting = None, [], {}, DeferredReads()
        for alarm in self.alarms.values():
            alarm.reset()

    # -- speaking ----------------------------------------------------------------------------------

    def catch_up(self, trainer: Trainer) -> None:
        """Judge what was measured, too."""
        super().catch_up(trainer)
        self._judge(trainer, self._waiting.read())

    def _judge(self, trainer: Trainer, readings: list[tuple[int, list[float]]]) -> None:
        for step, (rows, bad, collapsed, size) in readings:
            if self.alarms["bad"].update(bad=bad > 0, good=bad == 0):
                self._say(
                    trainer,
                    "Logits are not finite",
                    f"at step {step} {bad:.0f} rows had logits of NaN or inf; {self.name}/* leaves "
                    "them out. Look at the last steps before it.",
                )
            if not rows:
                continue
            good = collapsed <= self.collapse_share / 1.2
            if self.alarms["collapse"].update(bad=collapsed >= self.collapse_share, good=good):
                self._say(
                    trainer,
                    "Softmax collapse",
                    f"at step {step} rounding left one class in the softmax of {collapsed:.0%} of "
                    "the rows: those that are right send no gradient any more. Stop here, or bound "
                    "the logits: loss=stablemax, callbacks=[perp_grad], or label smoothing.",
                )
            self._sizes = [*self._sizes, (step, size)][-self.window :]
            self._extrapolate(trainer, step)

    def _extrapolate(self, trainer: Trainer, step: int) -> None:
        steps, sizes = zip(*self._sizes, strict=True)
        self.onset = onset_step(steps, sizes, self.threshold)
        near = self.onset is not None and self.onset <= planned_steps(trainer)
        if self.alarms["onset"].update(bad=near, good=not near):
            self._say(
                trainer,
                "Logits grow without end",
                f"the largest |log Z| is {sizes[-1]:.3g} at step {step} and on its way to reach "
                f"{self.threshold:g} at step {self.onset:.0f}. A lower learning rate, weight decay "
                "on the head, or loss=logsumexp_penalty beside yours keeps logits where rounding "
                "does not matter.",
            )

    def _say(self, trainer: Trainer, title: str, text: str) -> None:
        announce(trainer, self.action, title, f"LogitHealthMonitor: {text}")

    # -- resuming ----------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """All that the next measurement depends on, as plain numbers."""
        return {
            "sizes": [list(point) for point in self._sizes],
            "onset": self.onset,
            "last": {key: float(value) for key, value in self._last.items()},
            "alarms": {key: [alarm.on, alarm.count] for key, alarm in self.alarms.items()},
            "waiting": self._waiting.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self._sizes = [(int(step), size) for step, size in state_dict["sizes"]][-self.window :]
        self.onset, self._last = state_dict["onset"], dict(state_dict["last"])
        for key, (on, count) in state_dict["alarms"].items():
            self.alarms[key].on, self.alarms[key].count = on, count
        self._waiting.load_state_dict(state_dict["waiting"])


def tell(stats: SoftmaxStats) -> Tensor:
    """What a rank tells the others of its rows, ``(8,)``: `SUMS`, then `MAXIMA`.

    Of rows that count and whose log Z is finite; the maxima are -inf if there are none.
    """
    log_z, confidence = stats.logsumexp, stats.confidence
    assert log_z is not None
    assert confidence is not None
    finite = log_z.isfinite() & confidence.isfinite()
    use = finite if stats.valid is None else finite & stats.valid
    bad = ~finite if stats.valid is None else ~finite & stats.valid
    zero = torch.zeros_like(use) if stats.log_prob is None else stats.log_prob == 0
    # One more than there are, so that no rows at all need no case of their own.
    none = log_z.new_full((1,), -math.inf)
    sums = (use, bad, torch.where(use, log_z, 0), use & (confidence == 1), use & zero)
    maxima = (log_z, log_z.abs(), log_z + confidence.log())
    return torch.stack(
        [part.to(log_z.dtype).sum() for part in sums]
        + [torch.cat([torch.where(use, part, -math.inf), none]).amax() for part in maxima]
    )


def tell_scores(logits: Tensor, valid: Tensor | None) -> Tensor:
    """The same of logits ``(N,)`` or ``(N, L)`` without softmax: both sizes are the largest |z|."""
    z = logits.to(torch.promote_types(logits.dtype, torch.float32)).reshape(len(logits), -1).abs()
    # A column of -inf is masked out for some losses, so that only what no number is is bad.
    bad = logits.isnan() | logits.isposinf()
    bad = bad.reshape(len(logits), -1).any(1)
    use = ~bad if valid is None else ~bad & valid
    bad = bad if valid is None else bad & valid
    sizes = torch.where(use[:, None] & z.isfinite(), z, -math.inf)
    largest = torch.cat([sizes.flatten(), z.new_full((1,), -math.inf)]).amax()
    nothing = torch.zeros_like(largest)
    sums = [use.sum().to(z), bad.sum().to(z), nothing, nothing, nothing]
    return torch.stack([*sums, torch.full_like(largest, -math.inf), largest, largest])
