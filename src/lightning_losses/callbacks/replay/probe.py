# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Ask a training step for its tensors again, with other parameters, without disturbing training.

`Probe` re-runs the user's ``training_step`` on the same batch, from the same random numbers,
buffers and attributes, and leaves it by an exception once ``compute_loss`` has its named tensors.
What it cannot undo: writes to objects that are not attributes of the module (another object's
counter, a file, a logger's experiment), and random numbers from a generator that lives there.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from lightning.pytorch.utilities.signature_utils import is_param_in_hook_signature
from lightning_utilities.core.apply_func import apply_to_collection
from torch import Tensor

from lightning_losses.callbacks.replay.muted import muted
from lightning_losses.callbacks.replay.training_state import TrainingState, shard_of

Named = dict[str, Any]
T = TypeVar("T")


class Captured(BaseException):
    """Leaves a re-run training step; no Exception, so that a user's ``except`` lets it pass."""


class ProbeFailed(Exception):
    """A re-run that did not get to its tensors, or moved what it must not move."""


class Observers:
    """What ``compute_loss`` shows its named tensors to while somebody observes the module."""

    def __init__(self) -> None:
        self.all: list[Callable[[Named], None]] = []

    @torch.compiler.disable
    def __call__(self, named: Named) -> None:
        for observer in self.all:
            observer(named)

    def __reduce__(self) -> tuple[type[None], tuple[()]]:
        return type(None), ()  # a copy of the module is observed by nobody


def observe(module: LightningModule, observer: Callable[[Named], None]) -> None:
    """Show the named tensors of every ``compute_loss`` of the module to ``observer``."""
    observers = module.__dict__.get("_capture") or Observers()
    observers.all.append(observer)
    module.__dict__["_capture"] = observers


def stop_observing(module: LightningModule, observer: Callable[[Named], None]) -> None:
    """Show them no longer; harmless if it never did."""
    observers = module.__dict__.get("_capture")
    if isinstance(observers, Observers) and observer in observers.all:
        observers.all.remove(observer)
        if not observers.all:
            del module.__dict__["_capture"]


class Probe(Generic[T]):
    """Re-runs one training step; taken before that step, usable while its batch lasts.

    A ``probe_step(self, batch) -> dict`` of the module's own is called instead, if there is one.

    Args:
        trainer: for the precision context, the device and the optimizers.
        module: whose ``training_step`` calls ``compute_loss``.
        batch: on the device, as ``training_step`` will get it; its tensors are copied.
        batch_idx: its index.
        read: makes of the named tensors what `run` returns, within the precision context.
        call: which ``compute_loss`` of the step to read, the first is 0.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        batch_idx: int,
        read: Callable[[Named], T],
        call: int = 0,
    ) -> None:
        self.trainer, self.module, self.read, self.call = trainer, module, read, call
        self.batch, self.batch_idx = _copied(batch), batch_idx
        self.start = self._state()
        self._versions = self._versions_now()

    @property
    def stands_alone(self) -> bool:
        """Whether what `run` gives can be compared with another `run` only, not with the real step.

        So it is with a ``probe_step``, and with a compiled step: that rounds and draws random
        numbers in its own way, and Dynamo may not notice that somebody has begun to observe.
        """
        return has_probe_step(self.module) or bool(getattr(self.module, "_compiler_ctx", None))

    def run(self, within: contextlib.AbstractContextManager[object] | None = None) -> T:
        """What ``read`` makes of the named tensors at the parameters as they are now.

        Args:
            within: entered around the step, once all but the parameters is as it was before it.

        Raises:
            ProbeFailed: ``compute_loss`` was not reached, or a parameter was moved.
            Exception: whatever the step itself raises.
        """
        now, versions = self._state(), self._versions_now()
        parameters = list(self.start.parameters.values())
        flags = [(p, p.grad, p.requires_grad) for p in parameters]
        try:
            self._reshard()
            self.start.put_back()
            within = within or contextlib.nullcontext()
            with torch.no_grad(), self.trainer.precision_plugin.train_step_context(), within:
                made = self._run()
        finally:
            self._reshard()
            now.put_back()
            for parameter, grad, requires_grad in flags:
                parameter.grad = grad
                parameter.requires_grad_(requires_grad)
        self._require_still(versions)
        return made

    def run_checked(self, at: Sequence[tuple[Tensor, Tensor]] = ()) -> T:
        """The same with some parameters at other values, and every parameter put back after.

        Finds a step that moves a parameter by any means, and undoes it. Holds a copy of all.
        """
        names = {id(p): (name, p) for name, p in self.start.parameters.items()}
        tensors = {id(p): ("?", p) for p, _ in at} | names
        # Of DTensors this rank's parts: to ask whether they are the same must not be a collective.
        held = {key: shard_of(p).detach().clone() for key, (_, p) in tensors.items()}
        expected = held | {id(p): shard_of(value) for p, value in at}
        try:
            for p, value in at:
                shard_of(p).data.copy_(shard_of(value))
            made = self.run()
            for key, (name, p) in tensors.items():
                if not _same(shard_of(p), expected[key]):
                    raise moved(name)
        finally:
            for key, (_, p) in tensors.items():
                shard_of(p).data.copy_(held[key])
        return made

    def require_still(self) -> None:
        """Raise ProbeFailed if the real step has changed a parameter since the probe was taken."""
        self._require_still(self._versions)

    def _run(self) -> T:
        made: list[T] = []
        calls = 0

        def capture(named: Named) -> None:
            nonlocal calls
            calls += 1
            if calls > self.call:
                made.append(self.read(named))
                raise Captured

        module = self.module
        batch = _copied(self.batch)
        with muted(module, _capture=capture):
            if has_probe_step(module):
                return self.read(module.probe_step(batch))  # type: ignore[operator]
            compiled = getattr(module, "_compiler_ctx", None) or {}
            # What Dynamo made of the step cannot be left by an exception; the original can.
            step = compiled.get("original_training_step", module.training_step)
            arguments = [batch]
            if is_param_in_hook_signature(step, "batch_idx", min_args=2):
                arguments.append(self.batch_idx)
            with contextlib.suppress(Captured):
                step(*arguments)
        if not made:
            raise ProbeFailed(
                f"training_step called compute_loss {calls} times, not {self.call + 1} times"
            )
        return made[0]

    def _state(self) -> TrainingState:
        self._reshard()
        trained = [
            p for o in self.trainer.optimizers for group in o.param_groups for p in group["params"]
        ]
        return TrainingState(self.module, self.trainer.strategy.root_device, trained)

    def _reshard(self) -> None:
        """Have FSDP2 let go of the whole parameters that a forward pass has made of their shards.

        Without a backward pass it keeps some, and the next forward pass would not look at the
        shards, which are what an optimizer or a controller has moved.
        """
        if isinstance(self.trainer.strategy, ModelParallelStrategy):
            from torch.distributed.fsdp import FSDPModule

            for part in self.module.modules():
                if isinstance(part, FSDPModule):
                    part.reshard()

    def _versions_now(self) -> list[int]:
        return [p._version for p in self.start.parameters.values()]

    def _require_still(self, versions: list[int]) -> None:
        for (name, p), version in zip(self.start.parameters.items(), versions, strict=True):
            if p._version != version:
                raise moved(name)


def moved(name: str) -> ProbeFailed:
    """The error about a parameter that the step itself changes, not the optimizer."""
    return ProbeFailed(
        f"training_step changes the parameter {name!r} itself before compute_loss (a teacher's "
        "moving average?); running it once more would change it twice"
    )


def _same(a: Tensor, b: Tensor) -> bool:
    return bool(((a == b) | ((a != a) & (b != b))).all())


def has_probe_step(module: LightningModule) -> bool:
    """Whether the user wrote a ``probe_step``."""
    return callable(getattr(module, "probe_step", None))


def _copied(batch: Any) -> Any:
    """The batch in containers of its own with tensors of its own, for steps that change theirs."""
    return apply_to_collection(batch, Tensor, lambda tensor: tensor.detach().clone())
