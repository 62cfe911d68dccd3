# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`StepRadiusMonitor`: how far an optimizer step moves the logits, in units of the safe radius."""

from __future__ import annotations

from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_losses.callbacks.measured_step import Measured, MeasuredStep, explain
from lightning_losses.callbacks.monitor import Monitor
from lightning_losses.callbacks.probe import Named, has_probe_step, observe, stop_observing
from lightning_losses.record import LossRecord

PROBE_STEP = """
    def probe_step(self, batch):  # no logging, no updates
        x, y = batch
        return {"logits": self.net(x), "target": y}"""

SHARDED = (DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy)


class StepRadiusMonitor(Monitor):
    """Measures ``r = max over rows of spread(logits after - logits before) / pi`` of a step.

    "After" is one re-run of ``training_step`` on the same batch right after the optimizer has
    stepped (see `Probe`), so ``r`` belongs to the update as it was applied. Up to ``r = 1`` no
    row's loss changed by more than pi nats, and the log-softmax along the update is analytic
    (P. Sao, arXiv 2603.13552). That does not say that the loss fell.

    Logs, at each measured step:

    - ``step_radius/r``, ``step_radius/r_p99``: the largest over rows, and their 99th percentile
      (on several ranks the largest of the ranks' percentiles)
    - ``step_radius/update_norm``: Euclidean length of the applied update
    - ``step_radius/rho_a``: ``update_norm / r``, the radius as a length in parameter space
    - ``step_radius/rows``: how many rows were measured, all ranks together
    - ``step_radius/noise_floor``: in bf16 or fp16, the r that rounding alone may show

    Where several optimizers step in a batch each is measured, ``r`` and ``r_p99`` are the largest,
    and the rest is logged by optimizer, as in ``step_radius/update_norm/0``.

    The first measurement also re-runs the step at the old parameters. If that does not reproduce
    the real step, or if the step changes parameters by itself, the monitor says so and turns itself
    off; training is not affected. A ``probe_step(self, batch)`` that returns the named tensors is
    the remedy. With it, and with a compiled module, "before" is a re-run like "after".

    Holds a copy of the trained parameters while a step is measured, two copies of all parameters at
    the first one, and costs one forward pass.

    Args:
        every_n_steps: optimizer steps between measurements.
        max_rows: larger batches are measured on every k-th row; that can only lower ``r``.
        call: which ``compute_loss`` of a step to measure where there are several; 0 is the first.
    """

    def __init__(self, every_n_steps: int = 50, max_rows: int = 4096, call: int = 0) -> None:
        super().__init__(every_n_steps)
        if max_rows < 1 or call < 0:
            raise ValueError(
                f"max_rows must be at least 1 and call at least 0, got {max_rows} and {call}."
            )
        self.max_rows, self.call = max_rows, call
        self.disabled: str | None = None
        self._replay: float | None = None
        self._step: MeasuredStep | None = None
        self._batch: tuple[Any, int] = (None, 0)
        self._handles: list[RemovableHandle] = []

    @property
    def state_key(self) -> str:
        """Unique for the arguments."""
        return self._generate_state_key(every_n_steps=self.every_n_steps, call=self.call)

    def state_dict(self) -> dict[str, Any]:
        return {"measured_step": self._measured_step, "disabled": self.disabled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured_step = state_dict["measured_step"]
        self.disabled = state_dict["disabled"]

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the optimizers: only they know when parameters change."""
        self._replay = None
        if trainer.global_step == 0:  # not resumed: whatever an earlier training left is stale
            self.disabled, self._measured_step = None, -1
        if has_probe_step(pl_module):
            self.disabled = None  # the remedy may have come after the checkpoint
        if isinstance(trainer.strategy, SHARDED):
            self._disable(f"{type(trainer.strategy).__name__} shards the parameters", remedy="")
        if self.disabled is not None or self.objective(pl_module) is None:
            return
        for number, optimizer in enumerate(trainer.optimizers):

            def before(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
                self._before_step(trainer, pl_module, optimizer)

            def after(optimizer: Optimizer, args: Any, kwargs: Any, number: int = number) -> None:
                self._after_step(optimizer, number)

            self._handles.append(optimizer.register_step_pre_hook(before))
            self._handles.append(optimizer.register_step_post_hook(after))

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Decide whether the coming step is measured; under accumulation, its last batch is."""
        step = trainer.global_step
        self.due = (
            bool(self._handles)
            and self.disabled is None
            and step % self.every_n_steps == 0
            and step != self._measured_step
        )
        if not self.due:
            return
        self._due_step, self._batch = step, (batch, batch_idx)
        observe(pl_module, self._observe)
        if not pl_module.automatic_optimization:
            self._begin(trainer, pl_module)

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log what the optimizer hooks have measured: in there logging is not allowed."""
        step = self._step
        if step is None or not step.stepped or self.disabled is not None:
            return
        self._measured_step = self._due_step
        if step.measured:
            self.publish(summary(step.measured, len(trainer.optimizers)), record.rows)
        else:
            self.say_once(
                f"no compute_loss number {self.call} (the first is 0) came before the optimizer's "
                "step, so that it was not measured."
            )
        # LBFGS runs the step several times for one update; that is one call each.
        if step.calls > self.call + 1 and not isinstance(trainer.optimizers[0], LBFGS):
            self.say_once(
                f"training_step calls compute_loss {step.calls} times; measured is number "
                f"{self.call} (the first is 0), see the argument call."
            )

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Log, and let go of everything held."""
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        self._release(pl_module)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the optimizers and the module as they were found."""
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizers and the module as they were found."""
        self._release(pl_module)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # -- within a step ---------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        objective, (batch, batch_idx) = self.objective(module), self._batch
        try:
            self._step = MeasuredStep(
                trainer,
                module,
                batch,
                batch_idx,
                call=self.call,
                ignore_index=-100 if objective is None else objective.ignore_index,
                max_rows=self.max_rows,
                replay=self._replay,
            )
        except Exception as error:
            self._disable(explain(error))

    def _before_step(self, trainer: Trainer, module: LightningModule, optimizer: Optimizer) -> None:
        if not self.due or self.disabled is not None:
            return
        if self._step is None:
            # In automatic optimisation training_step runs inside the step, that is from here on:
            # later than the batch's hooks, so that what they did to the module is in the state.
            self._begin(trainer, module)
        if self._step is not None:
            self._step.before_step(optimizer)

    def _observe(self, named: Named) -> None:
        if self._step is not None:
            self._step.observe(named)

    def _after_step(self, optimizer: Optimizer, number: int) -> None:
        step = self._step
        if step is None or self.disabled is not None:
            return
        step.after_step(optimizer, number)
        self._replay = step.replay
        if step.failure is not None:
            self._disable(step.failure)

    def _release(self, module: LightningModule) -> None:
        stop_observing(module, self._observe)
        self.due, self._step, self._batch = False, None, (None, 0)

    def _disable(
        self, reason: str, remedy: str = f" To measure it, add to your module:{PROBE_STEP}"
    ) -> None:
        self.disabled = reason
        self.say_once(f"off for the rest of training, which goes on: {reason}.{remedy}")


def summary(measured: dict[int, Measured], optimizers: int) -> dict[str, Tensor]:
    """What is logged of a step, by name."""
    steps = list(measured.values())
    values = {
        "r": torch.stack([step.r for step in steps]).amax(),
        "r_p99": torch.stack([step.r_p99 for step in steps]).amax(),
        "rows": steps[0].rows,
    }
    for number, step in measured.items():
        end = f"/{number}" if optimizers > 1 else ""
        values[f"r{end}"] = step.r
        values[f"update_norm{end}"] = step.update_norm
        values[f"rho_a{end}"] = step.update_norm / step.r
        if step.noise_floor is not None:
            values[f"noise_floor{end}"] = step.noise_floor
    return {f"step_radius/{name}": value for name, value in values.items()}
