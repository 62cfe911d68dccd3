# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`MeasuredStep`: the logits of one batch before and after the optimizers have stepped on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

import torch
import torch.distributed as dist
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import ModelParallelStrategy
from torch import Tensor
from torch.optim import Optimizer

from lightning_losses.callbacks.reading.gather import largest, summed
from lightning_losses.callbacks.replay.probe import Named, Probe, ProbeFailed
from lightning_losses.callbacks.replay.step_rows import StepRows, step_rows
from lightning_losses.callbacks.replay.training_state import shard_of
from lightning_losses.distributed import is_on_mesh
from lightning_losses.metrics.step_radius.secant import Secant, secant
from lightning_losses.objective import Objective

#: A re-run at unchanged parameters may differ from the real step by this r (or by rounding).
TOLERANCE = 1e-3

M = TypeVar("M")
T = TypeVar("T")

#: Parameters that an optimizer moves, each with a copy of its value before.
Kept = list[tuple[Tensor, Tensor]]


class MeasuredStep(Generic[M]):
    """One training step while it is measured. Never raises: what goes wrong is its ``failure``.

    A subclass says in ``resolve_step`` what is done about an optimizer's step and what is found.

    Args:
        trainer: passed on to `Probe`, as ``module``, ``batch``, ``batch_idx`` and ``call`` are.
        objective: says which rows count, and what the logits are.
        max_rows: see `step_rows`.
        replay: r between a real step and its re-run, if that is known already.
    """

    repeats: ClassVar[bool] = False
    """Whether a further step of one optimizer within the training step is settled too; the logits
    before it take another re-run."""

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        batch_idx: int,
        *,
        call: int,
        objective: Objective,
        max_rows: int,
        replay: float | None,
    ) -> None:
        self.trainer, self.call = trainer, call
        self.objective, self.max_rows = objective, max_rows
        self.replay = self._replay = replay
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        self.before: StepRows | None = None
        self.calls = 0
        self.stepped = False
        self.failure: str | None = None
        self.measured: dict[int, M] = {}
        self._kept: dict[Optimizer, Kept] = {}
        self.probe = Probe(trainer, module, batch, batch_idx, self._read, call)

    def resolve_step(
        self, before: StepRows, kept: Kept, norm: Tensor
    ) -> tuple[M | None, StepRows | None]:
        """What was found, and the rows as they are now; None both if it failed on any rank."""
        raise NotImplementedError

    def observe(self, named: Named) -> None:
        """The real step's tensors, as ``compute_loss`` gets them."""
        self.calls += 1
        if self.calls != self.call + 1 or self.failure is not None or self.probe.stands_alone:
            return
        try:
            if not self.stepped:
                self.probe.require_still()
            self.before = self._read(named)
        except Exception as error:
            self.failure = explain(error)

    def before_step(self, optimizer: Optimizer, number: int) -> None:
        """Keep the parameters that this optimizer will move; ``number`` is its place."""
        self._kept[optimizer] = []
        try:
            alone = self.probe.stands_alone and self.before is None and not self.stepped
            if alone or (self.repeats and number in self.measured):
                self.before = self._run()
            trained = (p for group in optimizer.param_groups for p in group["params"])
            self._kept[optimizer] = [(p, p.detach().clone()) for p in trained if p.requires_grad]
        except Exception as error:
            self.failure = explain(error)

    def after_step(self, optimizer: Optimizer, number: int) -> M | None:
        """Settle what the optimizer did, if it did anything."""
        kept = self._kept.pop(optimizer, None)
        if kept is None:
            return None
        # Ranks agree before all that follows, of which much is a collective.
        if not self._agree():
            return None
        norm = self.update_norm(kept)
        if norm == 0:
            return None  # a GradScaler skipped, under a fused optimizer
        self.stepped = True
        if number in self.measured and not self.repeats:
            self.before = None  # a second step: the logits before it are not known
        before = self.before
        if before is None:
            return None
        resolved, self.before = self.resolve_step(before, kept, norm)  # where the next step begins
        if resolved is not None:
            self.measured[number] = resolved
        return resolved

    def compare(
        self, before: StepRows, kept: Kept, bounds: bool = False
    ) -> tuple[StepRows, Secant] | None:
        """The rows now, and how they differ; None if that failed on any rank.

        Where the model or its classes are split over ranks, a re-run and what is made of it wait
        for others: so all ranks know that each has come so far before they go on.
        """
        if self.replay is None and not self._check_replay(before, kept):
            return None
        if before.problem.class_range is None:
            compared = self._attempt(lambda: _with_change(before, self._run(), bounds))
        else:
            after = self._attempt(self._run)
            if after is None:
                return None
            compared = self._attempt(lambda: _with_change(before, after, bounds))
        self.replay = self._replay
        return compared

    def largest(self, values: Tensor) -> Tensor:
        """The largest over ranks, entry by entry."""
        return largest(self.trainer, values)

    def total(self, values: Tensor) -> Tensor:
        """The sum over ranks, entry by entry."""
        return summed(self.trainer, values)

    def update_norm(self, kept: Kept) -> Tensor:
        """Euclidean length of the update so far, of all ranks' shards; see `update_norm`."""
        device = self.trainer.strategy.root_device
        if not isinstance(self.trainer.strategy, ModelParallelStrategy):
            return update_norm(kept, device)
        # Each rank's share of the sum of squares: what several hold alike counts once.
        world = self.trainer.world_size
        norms = [
            update_norm([(shard_of(new), shard_of(old))], device) * math.sqrt(_parts(new) / world)
            for new, old in kept
        ]
        total = torch.stack(norms).square().sum() if norms else torch.zeros((), device=device)
        dist.all_reduce(total)
        return total.sqrt()

    def _check_replay(self, before: StepRows, kept: Kept) -> bool:
        """Whether the step gives the same logits again, on all ranks."""
        again = self._attempt(lambda: self.probe.run_checked(kept))
        if again is None:
            return False

        def difference() -> float:
            change = secant(before.problem, again.problem)
            replay = _largest(change.spread / math.pi)
            if replay > max(TOLERANCE, _largest(rounding(change, before))):
                raise ProbeFailed(
                    "the step, run again at unchanged parameters, gives other logits (by "
                    f"{replay:.2g} in r): it depends on something that the module does not hold, "
                    "such as a random generator or a counter elsewhere"
                )
            return replay

        self._replay = self._attempt(difference)
        return self._replay is not None

    def _run(self) -> StepRows:
        """The rows now; at first with every parameter watched."""
        return self.probe.run_checked() if self.replay is None else self.probe.run()

    def _attempt(self, work: Callable[[], T]) -> T | None:
        """What ``work`` returns; None if it failed on any rank."""
        done = None
        try:
            done = work()
        except Exception as error:
            self.failure = explain(error)
        return done if self._agree() else None

    def _agree(self) -> bool:
        """Whether no rank has failed; if one has, all ranks now know of its failure."""
        strategy, world = self.trainer.strategy, self.trainer.world_size
        if world > 1:
            # The lowest rank that failed, as a number that a maximum finds.
            first = 0 if self.failure is None else world - self.trainer.global_rank
            shared = torch.tensor(float(first), device=strategy.root_device)
            if first := int(strategy.reduce(shared, reduce_op="max")):
                self.failure = strategy.broadcast(self.failure, src=world - first)
        return self.failure is None

    def _read(self, named: Named) -> StepRows:
        chosen = None if self.before is None else self.before.chosen
        head = self.objective.head(named.get("logits"))
        ignore_index = self.objective.ignore_index
        return step_rows(named, ignore_index, self.max_rows, chosen, self.dtype, head)


def rounding(change: Secant, before: StepRows) -> Tensor:
    """The r that rounding alone may show, ``(N,)``."""
    return change.size * before.epsilon / math.pi


def is_coarse(before: StepRows) -> bool:
    """Whether the logits were made in bf16 or fp16."""
    return before.epsilon > torch.finfo(torch.float32).eps


def update_norm(kept: Kept, device: torch.device) -> Tensor:
    """Euclidean length of an update from (new, old) pairs, 0-dim, float32 at least."""
    norms = [
        (new.detach().to(torch.promote_types(new.dtype, torch.float32)) - old).norm().to(device)
        for new, old in kept
    ]
    return torch.stack(norms).norm() if norms else torch.zeros((), device=device)


def _with_change(before: StepRows, after: StepRows, bounds: bool) -> tuple[StepRows, Secant]:
    return after, secant(before.problem, after.problem, bounds)


def _parts(tensor: Tensor) -> int:
    """How many parts a tensor is split in; 1 where ranks hold all of it."""
    if not is_on_mesh(tensor):
        return 1
    mesh, placements = tensor.device_mesh, tensor.placements  # type: ignore[attr-defined]
    return math.prod(mesh.size(i) for i, place in enumerate(placements) if not place.is_replicate())


def explain(error: Exception) -> str:
    """One line for the message that turns a monitor off."""
    if isinstance(error, ProbeFailed):
        return str(error)
    return f"asking the step for its logits raised {type(error).__name__}: {error}"


def _largest(values: Tensor) -> float:
    return float(values.amax()) if len(values) else 0.0
