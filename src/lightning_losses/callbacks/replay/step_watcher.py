# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`StepWatcher`: what a callback needs that looks at optimizer steps as they are applied."""

from __future__ import annotations

from typing import Any, ClassVar, Generic

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy
from torch import Tensor
from torch.optim import LBFGS, Optimizer
from torch.utils.hooks import RemovableHandle

from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.replay.measured_step import M, MeasuredStep, explain
from lightning_losses.callbacks.replay.probe import Named, has_probe_step, observe, stop_observing
from lightning_losses.record import LossRecord

PROBE_STEP = """
    def probe_step(self, batch):  # no logging, no updates
        x, y = batch
        return {"logits": self.net(x), "target": y}"""

#: What holds parameters where nobody can copy and move them; DTensors can be.
OUT_OF_REACH = (DeepSpeedStrategy, FSDPStrategy)
SHARDED = (*OUT_OF_REACH, ModelParallelStrategy)


class StepWatcher(Monitor, Generic[M]):
    """Takes a `MeasuredStep` through each due step by the optimizers' own hooks.

    Lightning has no hook after the optimizer's step; torch's optimizers have. A subclass says in
    ``make_step`` which step it takes, and in ``summary`` what is logged of it.

    Args:
        every_n_steps: optimizer steps between measurements.
        max_rows: larger batches are measured on every k-th row.
        call: which ``compute_loss`` of a step to measure where there are several; 0 is the first.
        name: first part of the logged names.
    """

    acts: ClassVar[bool] = False
    """Whether it changes updates: then it does before all others look at them."""
    without: ClassVar[str] = "which goes on"
    """What becomes of training when this is off."""

    def __init__(self, every_n_steps: int, max_rows: int, call: int, name: str) -> None:
        super().__init__(every_n_steps)
        if max_rows < 1 or call < 0:
            raise ValueError(
                f"max_rows must be at least 1 and call at least 0, got {max_rows} and {call}."
            )
        self.max_rows, self.call, self.name = max_rows, call, name
        self.disabled: str | None = None
        self._replay: float | None = None
        self._step: MeasuredStep[M] | None = None
        self._batch: tuple[Any, int] = (None, 0)
        self._handles: list[RemovableHandle] = []

    def make_step(self, *args: Any, **options: Any) -> MeasuredStep[M]:
        """The step that does the work, made of these arguments."""
        raise NotImplementedError

    def summary(self, measured: dict[int, M], optimizers: int) -> dict[str, Tensor]:
        """What is logged of a step, by name."""
        raise NotImplementedError

    def on_resolved(self, trainer: Trainer, resolved: M) -> None:
        """An optimizer's step has been measured and dealt with; logging is not allowed here."""

    def is_due(self, step: int) -> bool:
        """Whether the coming optimizer step is measured."""
        return self.reaches(step) and step != self._measured_step

    def state_dict(self) -> dict[str, Any]:
        return {"measured_step": self._measured_step, "disabled": self.disabled}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._measured_step = state_dict["measured_step"]
        self.disabled = state_dict["disabled"]

    def reset(self) -> None:
        super().reset()
        self.disabled = None

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Hook into the optimizers: only they know when parameters change."""
        super().on_train_start(trainer, pl_module)
        self._replay = None
        if has_probe_step(pl_module):
            self.disabled = None  # the remedy may have come after the checkpoint
        if isinstance(trainer.strategy, OUT_OF_REACH):
            self._disable(f"{type(trainer.strategy).__name__} shards the parameters", remedy="")
        strange = [o for o in trainer.optimizers if not isinstance(o, Optimizer)]
        if strange and self.disabled is None:  # Lightning takes whatever can step
            kind = type(strange[0]).__name__
            self._disable(f"{kind} is no torch.optim.Optimizer, so it has no hooks", remedy="")
        if self.disabled is not None or self.objective(pl_module) is None:
            return
        for number, optimizer in enumerate(trainer.optimizers):

            def before(optimizer: Optimizer, args: Any, kwargs: Any, number: int = number) -> None:
                self._before_step(trainer, pl_module, optimizer, number)

            def after(optimizer: Optimizer, args: Any, kwargs: Any, number: int = number) -> None:
                self._after_step(trainer, optimizer, number)

            self._handles.append(optimizer.register_step_pre_hook(before))
            self._handles.append(optimizer.register_step_post_hook(after))
            hooks = self._handles[-1].hooks_dict_ref()
            if self.acts and hooks is not None:
                hooks.move_to_end(self._handles[-1].id, last=False)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Decide whether the coming step is measured; under accumulation, its last batch is."""
        self._release(pl_module)  # from a batch that the module has skipped
        step = trainer.global_step
        self.due = bool(self._handles) and self.disabled is None and self.is_due(step)
        if not self.due:
            return
        self._due_step, self._batch = step, (batch, batch_idx)
        observe(pl_module, self._observe)
        scaled = getattr(trainer.precision_plugin, "scaler", None) is not None
        if scaled or not pl_module.automatic_optimization:
            # A GradScaler must see the gradients before it decides whether there is a step.
            self._begin(trainer, pl_module)

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log what the optimizer hooks have measured: in there logging is not allowed."""
        step = self._step
        if step is None or not step.stepped or self.disabled is not None:
            return
        self._measured_step = self._due_step
        if step.measured:
            self.publish(trainer, self.summary(step.measured, len(trainer.optimizers)))
        else:
            self.warn_once(
                f"no compute_loss number {self.call} (the first is 0) came before the optimizer's "
                "step, so that it was not measured."
            )
        # LBFGS runs the step several times for one update; that is one call each.
        if step.calls > self.call + 1 and not isinstance(trainer.optimizers[0], LBFGS):
            self.warn_once(
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
        super().on_exception(trainer, pl_module, exception)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Leave the optimizers and the module as they were found."""
        super().teardown(trainer, pl_module, stage)
        self._release(pl_module)
        for handle in self._handles:
            handle.remove()
        self._handles = []

    # -- within a step ---------------------------------------------------------------------------

    def _begin(self, trainer: Trainer, module: LightningModule) -> None:
        objective, (batch, batch_idx) = self.objective(module), self._batch
        assert objective is not None  # or there were no hooks
        try:
            self._step = self.make_step(
                trainer,
                module,
                batch,
                batch_idx,
                call=self.call,
                objective=objective,
                max_rows=self.max_rows,
                replay=self._replay,
            )
        except Exception as error:
            self._disable(explain(error))

    def _before_step(
        self, trainer: Trainer, module: LightningModule, optimizer: Optimizer, number: int
    ) -> None:
        if not self.due or self.disabled is not None:
            return
        if self._step is None:
            # In automatic optimisation training_step runs inside the step, that is from here on:
            # later than the batch's hooks, so that what they did to the module is in the state.
            self._begin(trainer, module)
        if self._step is not None:
            self._step.before_step(optimizer, number)

    def _observe(self, named: Named) -> None:
        if self._step is not None:
            self._step.observe(named)

    def _after_step(self, trainer: Trainer, optimizer: Optimizer, number: int) -> None:
        step = self._step
        if step is None or self.disabled is not None:
            return
        resolved = step.after_step(optimizer, number)
        self._replay = step.replay
        if resolved is not None:
            self.on_resolved(trainer, resolved)
        if step.failure is not None:
            self._disable(step.failure)

    def _release(self, module: LightningModule) -> None:
        stop_observing(module, self._observe)
        self.due, self._step, self._batch = False, None, (None, 0)

    def _disable(
        self, reason: str, remedy: str = f" To measure it, add to your module:{PROBE_STEP}"
    ) -> None:
        self.disabled = reason
        self.warn_once(f"off for the rest of training, {self.without}: {reason}.{remedy}")
