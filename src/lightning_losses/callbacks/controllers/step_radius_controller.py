# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`StepRadiusController`: no optimizer step moves the logits further than the safe radius."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.base.alerts import announce
from lightning_losses.callbacks.replay.measured_step import (
    Kept,
    MeasuredStep,
    is_coarse,
    rounding,
)
from lightning_losses.callbacks.replay.step_rows import StepRows
from lightning_losses.callbacks.replay.step_watcher import StepWatcher
from lightning_losses.callbacks.replay.training_state import shard_of

#: A shrunk update is aimed at this part of the target: one rescale lands up to 10 % beside it.
AIM = 0.9

#: How many scales are tried before an update is undone: logits saturate, or grow like a power.
TRIES = 6

#: An r that stands for one that rounding has made 0.
LEAST = 1e-30

#: An update this far beyond the target is a spike, of which a line tells.
SPIKE = 10

#: So many undone updates in a row are not a spike any more.
MANY = 10


class Controlled(NamedTuple):
    """What was done about one optimizer's step; equal on all ranks."""

    r: float
    """Of the update as the optimizer made it; inf if it or the logits after it were not finite."""
    scale: float
    """The update was multiplied by this: 1 if it was left alone, 0 if it was undone."""
    applied_r: float
    """Of the update as it was applied in the end; 0 if it was undone."""


class Try(NamedTuple):
    """A scale, and the r of the update at it."""

    scale: float
    r: float


class StepRadiusController(StepWatcher[Controlled]):
    """Scales every applied update so that its ``r`` (see `StepRadiusMonitor`) is at most a target.

    After each optimizer step ``training_step`` is re-run on the batch. If
    ``r = max over rows of spread(logits after - logits before) / pi`` exceeds the target,
    parameters become ``old + scale * (new - old)`` and are measured again, until r is within the
    target: logits saturate, or grow like a power of the scale, so that one rescale may not do. An
    update that cannot be brought there in 6 tries, or that is not finite, or leads to logits that
    are not, is undone. With target 1 no row's loss changes by more than pi nats in a step (P. Sao,
    arXiv 2603.13552), on the rows of this batch. An update within the target is left alone to the
    last bit.

    Works with any optimizer that moves parameters in its ``step``, with several, with gradient
    accumulation, gradient scaling, manual optimisation, and on several ranks, which take the same
    scale. In bf16 and fp16 the target is never below what rounding alone may show.

    **Not rolled back**: the optimizer's state (moments and momentum have seen the gradient; once
    they hold a NaN, every later update is undone, of which a warning tells) and running
    statistics of the forward pass.

    Logs, after each step: ``step_radius_controller/r`` of the optimizer's own update (inf: it was
    not finite), ``.../scale`` (0: undone), ``.../applied_r`` of what was applied in the end (with
    several optimizers the largest r and the smallest scale), and the counts ``.../interventions``
    (scaled or undone) and ``.../undone`` since training began, which checkpoints keep. A line on
    the info log tells of updates beyond 10 times the target.

    Costs one forward pass a step and a copy of the trained parameters; to limit an
    update up to 6 more passes and another copy; at the first step two copies of all parameters. If
    a step cannot be measured it says so once, and training goes on uncontrolled.

    Args:
        target: the largest r, positive.
        max_rows: larger batches are measured on every k-th row; rows not measured are not capped.
        call: which ``compute_loss`` of a step to measure where there are several; 0 is the first.
        name: first part of the logged names; give a second one another.

    Examples:
        >>> controller = StepRadiusController(target=1.0)
    """

    acts = True
    without = "which goes on uncontrolled"
    identity = ("target", "call", "name")

    def __init__(
        self,
        target: float = 1.0,
        max_rows: int = 4096,
        call: int = 0,
        name: str = "step_radius_controller",
    ) -> None:
        super().__init__(1, max_rows, call, name)
        if not 0 < target < math.inf:
            raise ValueError(f"target must be positive and finite, got {target}.")
        self.target = target
        self.interventions = self.undone = self._in_a_row = 0

    def state_dict(self) -> dict[str, Any]:
        counts = {"interventions": self.interventions, "undone": self.undone}
        return super().state_dict() | counts

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        super().load_state_dict(state_dict)
        self.interventions, self.undone = state_dict["interventions"], state_dict["undone"]

    def reset(self) -> None:
        super().reset()
        self.interventions = self.undone = self._in_a_row = 0

    def is_due(self, step: int) -> bool:
        return True  # also where optimizers step that Lightning does not count

    def make_step(self, *args: Any, **options: Any) -> ControlledStep:
        return ControlledStep(self.target, *args, **options)

    def on_resolved(self, trainer: Trainer, resolved: Controlled) -> None:
        """Count, and say what was done."""
        self._in_a_row = 0 if resolved.scale else self._in_a_row + 1
        if resolved.scale == 1:
            return
        self.interventions += 1
        self.undone += resolved.scale == 0
        if resolved.r > SPIKE * self.target and self._in_a_row <= MANY:
            what = f"scaled by {resolved.scale:.3g}" if resolved.scale else "undone"
            announce(
                trainer,
                "log",
                "Update limited",
                f"step_radius_controller: at step {self._due_step} an update with "
                f"r = {resolved.r:.3g} was {what} (target {self.target:g}).",
            )
        if self._in_a_row == MANY:
            self.warn_once(
                f"{MANY} updates in a row were undone, so training stands still. If gradients were "
                "NaN once, the optimizer's state may still be: Adam's averages keep a NaN for "
                "ever. Look at the gradients before the first undone step."
            )

    def summary(self, measured: dict[int, Controlled], optimizers: int) -> dict[str, Tensor]:
        values = {
            "r": max(step.r for step in measured.values()),
            "applied_r": max(step.applied_r for step in measured.values()),
            "scale": min(step.scale for step in measured.values()),
            "interventions": self.interventions,
            "undone": self.undone,
        }
        return {f"{self.name}/{k}": torch.tensor(float(v)) for k, v in values.items()}


class ControlledStep(MeasuredStep[Controlled]):
    """Measures each optimizer's step, and shrinks it until it is within the target."""

    repeats = True

    def __init__(self, target: float, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.target = target

    def resolve_step(
        self, before: StepRows, kept: Kept, norm: Tensor
    ) -> tuple[Controlled | None, StepRows | None]:
        if self.largest((~norm.isfinite()).float()) > 0:
            move(kept, [old for _, old in kept], 0.0)  # unseen: a step may raise on NaN
            return Controlled(math.inf, 0.0, 0.0), before
        compared = self._radius(before, kept)
        if compared is None:
            return None, None
        first, limit, after = compared
        if first <= limit:
            return Controlled(first, 1.0, first), after
        if first == math.inf:
            move(kept, [old for _, old in kept], 0.0)
            return Controlled(first, 0.0, 0.0), before
        return self._limited(before, kept, first, limit)

    def _limited(
        self, before: StepRows, kept: Kept, first: float, limit: float
    ) -> tuple[Controlled | None, StepRows | None]:
        """Look for a scale at which r is within the limit; 0 if none is found."""
        new = [parameter.detach().clone() for parameter, _ in kept]
        over, best, rows = Try(1.0, first), None, None
        scale = AIM * limit / first
        for _ in range(TRIES):
            move(kept, new, scale)
            compared = self._radius(before, kept)
            if compared is None:
                return None, None
            r, _, after = compared
            if r == math.inf:
                break
            if r > limit:
                over = Try(scale, r)
            else:
                best, rows = Try(scale, r), after
                if r > limit / 2:
                    break
            scale = next_scale(over, best, AIM * limit)
        if best is not None:
            move(kept, new, best.scale)
            if self.update_norm(kept) > 0:  # not rounded away
                return Controlled(first, best.scale, best.r), rows
        move(kept, new, 0.0)
        return Controlled(first, 0.0, 0.0), before

    def _radius(self, before: StepRows, kept: Kept) -> tuple[float, float, StepRows] | None:
        """r now, what it may be, and the rows; over all ranks. None if that failed."""
        compared = self.compare(before, kept)
        if compared is None:
            return None
        after, change = compared
        maxima = torch.zeros(2, device=self.trainer.strategy.root_device)
        if len(change.spread):
            widest = change.spread.float().amax() / math.pi
            maxima = torch.stack([widest, rounding(change, before).float().amax()])
        r, noise = self.largest(maxima).tolist()
        limit = max(self.target, noise, self.replay or 0) if is_coarse(before) else self.target
        return r, limit, after


def next_scale(over: Try, best: Try | None, aim: float) -> float:
    """Where r may be at ``aim``, between a scale that is too large and one that will do."""
    if best is None:
        return over.scale * aim / over.r
    # Like a power of the scale between the two; where logits saturate, at most linearly.
    r = max(best.r, LEAST)
    power = math.log(over.r / r) / math.log(over.scale / best.scale)
    scale = best.scale * (aim / r) ** (1 / max(1.0, power))
    return scale if scale < over.scale else math.sqrt(best.scale * over.scale)


@torch.no_grad()
def move(kept: Kept, new: list[Tensor], scale: float) -> None:
    """Parameters to ``old + scale * (new - old)``; at scale 0 to old, to the last bit."""
    for (parameter, old), there in zip(kept, new, strict=True):
        # By .data, past version counters and hooks; not from `there` back, where a small scale
        # would be rounded away.
        before = shard_of(old)
        now = torch.lerp(before, shard_of(there), scale) if scale else before
        shard_of(parameter).data.copy_(now)
