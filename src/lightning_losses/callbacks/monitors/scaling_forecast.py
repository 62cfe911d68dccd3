# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`ScalingForecast`: where will the training loss be when the planned training is over?"""

from __future__ import annotations

import math
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.trainer.states import TrainerFn

from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.reading.loss_curve import LossCurve
from lightning_losses.callbacks.reading.training_plan import (
    Unplanned,
    planned_rates,
    planned_steps,
    rate_of,
)
from lightning_losses.metrics.training_curve.annealing import DECAY
from lightning_losses.metrics.training_curve.scaling_law import Forecast, forecast, refused


class ScalingForecast(RecordReader):
    """Logs at the end of validation and training epochs the loss expected at the end of training.

    - ``forecast/loss``: of the law fitted to the training loss so far, at the last planned step
    - ``forecast/low``, ``forecast/high``: a 90 % interval for the mean loss of a window there. It
      knows of the uncertainty of the fit and of the spread of the windows, not of a law that does
      not hold: take it for what a curve like this one does
    - ``forecast/residual``: spread of the windows about the law, relative to the loss

    The law is the learning-rate annealing law (arXiv 2408.11029) with the learning rates that have
    been, and those that the schedulers plan. Where these cannot be known (``ReduceLROnPlateau``,
    schedulers stepped by hand, rates that somebody else changes, or a start in the midst of a
    training) it is the power law with a constant in steps, which is said once.

    Nothing is logged while there is too little to go on: before 20 windows after the warm-up,
    before a tenth of the training, before the learning rate has begun to fall where it will, and
    where the fit does not determine the end (see `scaling_law`).
    ``problem`` then says why; a training that ends without any forecast says it too. All ranks log
    the same, from the loss of the global batch.

    Learning rates are those of the first group of the first optimizer. In manual optimisation a
    step is a batch.

    Args:
        every_n_steps: optimizer steps whose mean loss is one point. From 512 points on neighbours
            are joined, so that memory does not grow.
        decay: what is left of annealing a step later, lambda of the paper.
        name: first part of the logged names; give a second monitor another one.

    Raises:
        ValueError: every_n_steps below 1, or a decay outside of (0, 1].

    Examples:
        >>> monitor = ScalingForecast(every_n_steps=10)
    """

    identity = ("every_n_steps", "name")

    def __init__(
        self, every_n_steps: int = 10, decay: float = DECAY, name: str = "forecast"
    ) -> None:
        super().__init__()
        if every_n_steps < 1:
            raise ValueError(f"every_n_steps must be at least 1, got {every_n_steps}.")
        self.every_n_steps, self.decay, self.name = every_n_steps, decay, name
        self.curve = LossCurve(every_n_steps, decay)
        self.forecast: Forecast | None = None
        self._fitted = -1  # step of the last fit
        self._late = 0  # steps that were over when this callback came
        self._at = (0, 0)  # epoch, batches of it that are trained
        self._before = (0, 0.0)  # global step and learning rate before the batch
        self._plan: list[float] = []  # rates of the steps up to the end

    @property
    def problem(self) -> str:
        """Why there is no forecast now, or empty."""
        return "nothing was fitted yet" if self.forecast is None else self.forecast.problem

    # -- collecting ------------------------------------------------------------------------------

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Go on with the curve of a checkpoint, or begin one."""
        super().on_train_start(trainer, pl_module)
        self._plan = []
        if self.curve.sums.steps == 0:
            self._late = trainer.global_step
        self.start_measuring(pl_module)

    def reset(self) -> None:
        super().reset()
        self.curve, self.forecast = LossCurve(self.every_n_steps, self.decay), None
        self._fitted, self._late = -1, 0

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """The rate of the coming step: after it, schedulers will have moved on."""
        self._before = trainer.global_step, rate_of(trainer)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Count the batch."""
        record = self.new_record(pl_module)
        if record is not None:
            total, valid = record.total, record.num_valid.clamp(min=1)
            self.curve.add_loss(total.sum() / valid if total.ndim else total)
        step, rate = self._before
        if trainer.global_step != step or not pl_module.automatic_optimization:
            self.curve.add_step(rate)
        self._at = trainer.current_epoch, batch_idx + 1

    # -- telling ---------------------------------------------------------------------------------

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forecast, within a training."""
        if trainer.state.fn == TrainerFn.FITTING and not trainer.sanity_checking:
            self._tell(trainer, pl_module)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Forecast, if validation has not."""
        super().on_train_epoch_end(trainer, pl_module)
        self._tell(trainer, pl_module)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Say why there never was a forecast."""
        super().on_train_end(trainer, pl_module)
        if self.forecast is not None and self.forecast.problem:
            self.warn_once(f"no forecast by the end of training: {self.forecast.problem}.")

    def _tell(self, trainer: Trainer, module: LightningModule) -> None:
        if self._fitted == self.curve.sums.steps:
            return
        self._fitted = self.curve.sums.steps
        outlook = self._look_ahead(trainer)
        if trainer.world_size > 1:  # rounding may differ between machines, and decide on keys
            outlook = trainer.strategy.broadcast(outlook)
        self.forecast = outlook
        if outlook.problem:
            return
        values = outlook._asdict()
        told = ("loss", "low", "high", "residual")
        self.publish(trainer, {f"{self.name}/{key}": values[key] for key in told})

    def _look_ahead(self, trainer: Trainer) -> Forecast:
        """Fit what is known to what is planned."""
        sums = self.curve.sums
        points = [point for point in self.curve.read() if point.begin >= sums.warmup]
        steps, losses = [p.step + self._late for p in points], [p.loss for p in points]
        left = _steps_left(trainer, sums.steps, self._late)
        if left == math.inf:
            return refused("the trainer plans no end; give it max_steps or max_epochs", len(points))
        try:
            rates = self._planned(trainer, int(left))
        except Unplanned as reason:
            self.warn_once(
                f"{reason}. The forecast is that of a power law in steps, which does not know what "
                "changes of the learning rate do."
            )
            return forecast(steps, losses, sums.steps + self._late + left)
        end = type(sums)(**vars(sums))
        for rate in rates:
            end.add(rate)
        if end.warmup > sums.warmup:  # still rising
            points = []
        progress, annealing = [p.progress for p in points], [p.annealing for p in points]
        return forecast(progress, losses[: len(points)], end.progress, annealing, end.annealing)

    def _planned(self, trainer: Trainer, steps: int) -> list[float]:
        """The rates of the steps to come; simulated once while training goes by the plan."""
        if self._late:
            raise Unplanned(f"the learning rates before step {self._late} are not known")
        now = rate_of(trainer)
        plan = self._plan[len(self._plan) - steps :] if steps <= len(self._plan) else []
        if steps and (not plan or plan[0] != now):
            scheduled = bool(trainer.lr_scheduler_configs)
            if not scheduled and (self.curve.sums.fallen or self.curve.sums.warmup):
                raise Unplanned("the learning rate changes without a scheduler")
            plan = planned_rates(trainer, *self._at, steps)
        self._plan = plan
        return plan

    def state_dict(self) -> dict[str, Any]:
        """The curve, and what was said of it."""
        return {
            "curve": self.curve.state_dict(),
            "fitted": self._fitted,
            "late": self._late,
            "forecast": None if self.forecast is None else tuple(self.forecast),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.curve.load_state_dict(state_dict["curve"])
        self._fitted, self._late = state_dict["fitted"], state_dict["late"]
        told = state_dict["forecast"]
        self.forecast = None if told is None else Forecast(*told)


def _steps_left(trainer: Trainer, done: int, late: int) -> float:
    """Optimizer steps (batches, in manual optimisation) up to the planned end; inf without one."""
    total = planned_steps(trainer)
    module = trainer.lightning_module
    if not module.automatic_optimization and 0 < trainer.max_steps <= total:
        total = trainer.max_steps * done / max(trainer.global_step - late, 1)  # steps to a batch
        return max(0.0, round(total - done)) if math.isfinite(total) else total
    return max(0.0, total - done - late)
