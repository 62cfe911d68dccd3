# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`MeasuredStep`: the logits of one batch before and after the optimizers have stepped on it."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor
from torch.optim import Optimizer

from lightning_losses.callbacks.probe import Named, Probe, ProbeFailed
from lightning_losses.callbacks.rows import Rows, rows_of
from lightning_losses.metrics.radius import Secant, secant

#: A re-run at unchanged parameters may differ from the real step by this r (or by rounding).
TOLERANCE = 1e-3


class Measured(NamedTuple):
    """One optimizer's step, over all ranks; 0-dim each."""

    r: Tensor
    r_p99: Tensor
    update_norm: Tensor
    rows: Tensor
    noise_floor: Tensor | None  # None in float32 and float64


class MeasuredStep:
    """One training step while it is measured. Never raises: what goes wrong is its ``failure``.

    Args:
        trainer: passed on to `Probe`, as ``module``, ``batch``, ``batch_idx`` and ``call`` are.
        ignore_index: rows with this target do not count.
        max_rows: see `rows_of`.
        replay: r between a real step and its re-run, if that is known already.
    """

    def __init__(
        self,
        trainer: Trainer,
        module: LightningModule,
        batch: Any,
        batch_idx: int,
        *,
        call: int,
        ignore_index: int,
        max_rows: int,
        replay: float | None,
    ) -> None:
        self.trainer, self.call = trainer, call
        self.ignore_index, self.max_rows, self.replay = ignore_index, max_rows, replay
        self.dtype = next((p.dtype for p in module.parameters() if p.is_floating_point()), None)
        self.before: Rows | None = None
        self.calls = 0
        self.stepped = False
        self.failure: str | None = None
        self.measured: dict[int, Measured] = {}
        self._kept: dict[Optimizer, list[tuple[Tensor, Tensor]]] = {}
        self.probe = Probe(trainer, module, batch, batch_idx, self._read, call)

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

    def before_step(self, optimizer: Optimizer) -> None:
        """Keep the parameters that this optimizer will move."""
        self._kept[optimizer] = []
        try:
            if self.probe.stands_alone and self.before is None and not self.stepped:
                self.before = self._run()
            trained = (p for group in optimizer.param_groups for p in group["params"])
            self._kept[optimizer] = [(p, p.detach().clone()) for p in trained if p.requires_grad]
        except Exception as error:
            self.failure = explain(error)

    def after_step(self, optimizer: Optimizer, number: int) -> None:
        """Measure what the optimizer did, if it did anything; ``number`` is its place."""
        kept = self._kept.pop(optimizer, None)
        if kept is None:
            return
        norm = update_norm(kept, self.trainer.strategy.root_device)
        if norm == 0 and self.failure is None:  # a GradScaler skipped, under a fused optimizer
            return
        self.stepped = True
        if number in self.measured:  # a second step: the logits before it are not known
            self.before = None
        before = self.before
        # Ranks agree before a re-run too: it may hold collectives that wait for every rank.
        if (before is None and self.failure is None) or not self._agree():
            return
        assert before is not None
        after = change = None
        try:
            after, change = self._compare(before, kept)
        except Exception as error:
            self.failure = explain(error)
        if self._agree() and change is not None:
            self.measured[number] = self._share(before, change, norm)
        self.before = after  # where the next optimizer's step begins

    def _compare(self, before: Rows, kept: list[tuple[Tensor, Tensor]]) -> tuple[Rows, Secant]:
        """The rows after the step, and how they differ; on first use also the replay check."""
        replay = self.replay
        if replay is None:
            again = secant(before.problem, self.probe.run_checked(kept).problem)
            replay = _largest(again.spread / math.pi)
            if replay > max(TOLERANCE, _largest(again.size * before.epsilon / math.pi)):
                raise ProbeFailed(
                    "the step, run again at unchanged parameters, gives other logits (by "
                    f"{replay:.2g} in r): it depends on something that the module does not hold, "
                    "such as a random generator or a counter elsewhere"
                )
        after = self._run()
        self.replay = replay
        return after, secant(before.problem, after.problem)

    def _run(self) -> Rows:
        """The rows now; at first with every parameter watched."""
        return self.probe.run_checked() if self.replay is None else self.probe.run()

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

    def _share(self, before: Rows, change: Secant, norm: Tensor) -> Measured:
        """The measurement over all ranks."""
        strategy = self.trainer.strategy
        rows, device = len(change.spread), strategy.root_device
        maxima = torch.zeros(3, device=device)
        if rows:
            ordered = change.spread.float().sort().values / math.pi
            rounding = change.size.float().amax() * before.epsilon / math.pi
            maxima = torch.stack([ordered[-1], ordered[math.ceil(0.99 * rows) - 1], rounding])
        count = torch.tensor(float(rows), device=device)
        if self.trainer.world_size > 1:
            maxima = strategy.reduce(maxima, reduce_op="max")
            count = strategy.reduce(count, reduce_op="sum")
        r, r_p99, rounding = maxima
        coarse = before.epsilon > torch.finfo(torch.float32).eps
        floor = rounding.clamp(min=self.replay or 0) if coarse else None
        return Measured(r, r_p99, norm, count, floor)

    def _read(self, named: Named) -> Rows:
        chosen = None if self.before is None else self.before.chosen
        return rows_of(named, self.ignore_index, self.max_rows, chosen, self.dtype)


def update_norm(kept: list[tuple[Tensor, Tensor]], device: torch.device) -> Tensor:
    """Euclidean length of an update from (new, old) pairs, 0-dim, float32 at least."""
    norms = [
        (new.detach().to(torch.promote_types(new.dtype, torch.float32)) - old).norm().to(device)
        for new, old in kept
    ]
    return torch.stack(norms).norm() if norms else torch.zeros((), device=device)


def explain(error: Exception) -> str:
    """One line for the message that turns a monitor off."""
    if isinstance(error, ProbeFailed):
        return str(error)
    return f"asking the step for its logits raised {type(error).__name__}: {error}"


def _largest(values: Tensor) -> float:
    return float(values.amax()) if len(values) else 0.0
