# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`TermBalancer`: moves the weights of the terms by a rule, while training."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.strategies import FSDPStrategy
from torch import Tensor

from lightning_losses.callbacks.balance_parts.aggregator import Aggregator
from lightning_losses.callbacks.balance_parts.rules import DWA, Rule
from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.callbacks.reading.term_gradients import (
    gram_of_ranks,
    has_fsdp2,
    term_gradients,
)
from lightning_losses.callbacks.replay.training_state import TrainingState
from lightning_losses.evaluation.rows import Rows
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord


class TermBalancer(RecordReader):
    """Multiplies the weight of each term by a factor that a rule finds, step after step.

    Rules are `Uncertainty`, `GradNorm`, `DWA`, `ReLoBRaLo` and `Aggregator`; config group
    ``balance``. The weights and schedules of the config stay as they are and stand in front: with
    weight 0.3 a term begins at 0.3 of what the rule gives the others. The mixin logs
    ``train/weight/<term>``; look at the raw terms (``train/loss/<term>``), for the total moves
    with its weights.

    Losses are means over the rows of all ranks and of all batches of an accumulated step, the
    factors are made from them on the CPU, in float64, so they are equal on every rank; the device
    is waited for once an optimizer step. Factors of one step are for the next, but for
    `Aggregator`, which weighs each batch by its own gradients before it is evaluated. A term that
    is exactly 0 in a step, or has weight 0, is left out of it. The state is in checkpoints, and a
    resumed training goes on bit for bit. Of several ``compute_loss`` calls in a step the last
    counts.

    `GradNorm` and `Aggregator` look at gradients: those that `TermBalanceMonitor` describes, where
    the model hands over to the losses, not at the parameters of the trunk, which would take a
    backward pass a term through all of it. What holds there (no conflict between two terms) need
    not hold to the last degree at the parameters. They evaluate the terms once more a step. A term
    on parameters has no gradient there, keeps its weight, and takes no part.

    Args:
        rule: an object of one of the classes above.
        name: tells two of them apart.

    Raises:
        ValueError: when the fit begins, fewer than two terms, or gradients asked for under FSDP, or
            by `Aggregator` under accumulation, where the gradients of a step are not known when
            its first batch is weighed; in a step, a loss below 0 or infinite (but for
            `Uncertainty`, which takes negative ones), and gradients that nobody can see, within
            ``torch.compile``.

    Examples:
        >>> balancer = TermBalancer(GradNorm(alpha=1.5))
    """

    identity = ("name",)

    def __init__(self, rule: Rule | Aggregator, name: str = "balance") -> None:
        super().__init__()
        if not isinstance(rule, (Rule, Aggregator)):
            raise ValueError(f"rule must be one of lightning_losses.callbacks, got {rule!r}.")
        self.rule, self.name = rule, name
        self.factors: dict[str, float] = {}
        self._reset_sums()
        self._step, self._measured = 0, False

    @property
    def looks(self) -> bool:
        """Whether gradients of the terms are measured."""
        return isinstance(self.rule, Aggregator) or self.rule.reads_gradients

    def _reset_sums(self) -> None:
        # Of losses, gradients' inner products and batches since the last update, on the device.
        self._losses: Tensor | None = None
        self._gram: Tensor | None = None
        self._batches = self._looks = self._steps = 0

    # -- when the fit begins -----------------------------------------------------------------------

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complain while it is cheap."""
        objective = self.objective(pl_module)
        if objective is None:
            return
        if len(objective.terms) < 2:
            raise ValueError(
                f"TermBalancer weighs terms against each other, and there is one, "
                f"{next(iter(objective.terms))}: write loss=[ce,opl], or leave balance out."
            )
        if self.looks and (isinstance(trainer.strategy, FSDPStrategy) or has_fsdp2(pl_module)):
            raise ValueError(
                f"{type(self.rule).__name__} reads gradients of the terms, which FSDP's hooks do "
                "not allow apart: write balance=uncertainty, dwa or relobralo."
            )
        if isinstance(self.rule, Aggregator) and trainer.accumulate_grad_batches > 1:
            raise ValueError(
                "Aggregator weighs a step by all of its gradients, and under accumulation they are "
                "not known when its first batch is weighed: write "
                "trainer.accumulate_grad_batches=1, or another balance."
            )
        if isinstance(self.rule, Rule):
            fresh = list(objective.terms) != list(self.factors)
            if fresh or trainer.ckpt_path is None:
                self.rule.start(len(objective.terms))
                self.factors = dict(zip(objective.terms, self.rule.weights, strict=True))
        elif not self.factors:
            self.factors = dict.fromkeys(objective.terms, 1.0)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are counted from here, or from where a checkpoint was taken."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def reset(self) -> None:
        super().reset()
        self._reset_sums()

    # -- every batch -------------------------------------------------------------------------------

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the scales that the rule has found."""
        self.start_measuring(pl_module)
        objective = self.objective(pl_module)
        if objective is None:
            return
        self._scale(objective)
        self._measured = False
        if self.looks:
            objective.consult(
                self.state_key,
                lambda named, rows, normalizer: self._look(
                    trainer, objective, named, rows, normalizer
                ),
            )

    def _scale(self, objective: Objective) -> None:
        for name, term in objective.named_terms():
            term.scale = self.factors.get(name, 1.0)

    def _look(
        self,
        trainer: Trainer,
        objective: Objective,
        named: Mapping[str, Any],
        rows: Rows,
        normalizer: float | Tensor | None,
    ) -> None:
        """Measure the terms at factor 1; an aggregator then weighs the coming evaluation."""
        terms, step = dict(objective.named_terms()), trainer.global_step
        for term in terms.values():
            term.scale = 1.0
            term.set_step(step)
        state = TrainingState(objective, rows.device)
        try:
            with torch.enable_grad():
                found = term_gradients(objective, named, rows, normalizer)
        finally:
            state.put_back()
        gram = (
            torch.zeros(len(terms), len(terms), device=rows.device) if found is None else found.gram
        )
        gram = gram_of_ranks(trainer, gram)
        self._measured = True
        if isinstance(self.rule, Aggregator):
            self.factors = dict(zip(terms, self.rule.scales(gram, step), strict=True))
        else:
            # Of an accumulated step the root mean square of its batches' lengths: that of the mean
            # gradient would need the gradients themselves of every batch.
            self._gram = gram if self._gram is None else self._gram + gram
            self._looks += 1
        self._scale(objective)
        for term in terms.values():
            term.set_step(step)

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add the losses of this batch; after an optimizer step, let the rule move."""
        record = self.new_record(pl_module)
        objective = self.objective(pl_module)
        self._stop(pl_module)
        if record is None or objective is None:
            return
        if self.looks and not self._measured:
            raise ValueError(
                f"{type(self.rule).__name__} reads gradients of the terms, and nobody can see them "
                "within torch.compile: compile the network and not the objective or the step, or "
                "write balance=uncertainty, dwa or relobralo."
            )
        if isinstance(self.rule, Aggregator):
            return
        self._add(record)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        self._steps += 1
        every = self.rule.every_n_steps if isinstance(self.rule, DWA) else None
        if not self.rule.by_epoch or (every is not None and self._steps >= every):
            self._update(objective, trainer.global_step - 1)

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Let a rule of epochs move."""
        super().on_train_epoch_end(trainer, pl_module)
        objective = self.objective(pl_module)
        by_epoch = isinstance(self.rule, DWA) and self.rule.every_n_steps is None
        if by_epoch and objective is not None and self._batches:
            self._update(objective, max(trainer.global_step - 1, 0))

    def _add(self, record: LossRecord) -> None:
        values = torch.stack([value.detach().double() for value in record.means.values()])
        self._losses = values if self._losses is None else self._losses.to(values) + values
        self._batches += 1

    def _update(self, objective: Objective, step: int) -> None:
        """Mean losses and lengths since the last update, at the weights of the config."""
        assert isinstance(self.rule, Rule)
        assert self._losses is not None
        terms = dict(objective.named_terms())
        prior = [float(term.schedule(step)) for term in terms.values()]
        means = [value / self._batches for value in self._losses.tolist()]
        losses = [p * mean or math.nan for p, mean in zip(prior, means, strict=True)]
        for name, mean in zip(terms, means, strict=True):
            if not math.isfinite(mean) or (mean < 0 and not self.rule.signed):
                raise ValueError(
                    f"{type(self.rule).__name__} compares losses by their ratios, and the term "
                    f"{name!r} is {mean:.6g} at step {step}: it must be finite and at least 0. "
                    "Write balance=aggregator, which reads gradients alone."
                )
        norms = None
        if self._gram is not None:
            lengths = (self._gram.diagonal() / max(self._looks, 1)).clamp(min=0).sqrt()
            norms = [length or math.nan for length in lengths.double().tolist()]
        self.factors = dict(zip(terms, self.rule.update(losses, norms), strict=True))
        self._reset_sums()

    # -- leaving -----------------------------------------------------------------------------------

    def _stop(self, module: LightningModule) -> None:
        self.stop_measuring(module)
        for objective in objectives_of(module):
            objective.consult(self.state_key, None)

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The same as in the end: Lightning calls no teardown then."""
        super().on_exception(trainer, pl_module, exception)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the terms back with the weights of the config."""
        super().teardown(trainer, pl_module, stage)
        self._stop(pl_module)
        if stage == "fit":
            for objective in objectives_of(pl_module)[:1]:
                for _, term in objective.named_terms():
                    term.scale = 1.0

    def state_dict(self) -> dict[str, Any]:
        """Factors, the rule's state, and the sums of what has not been used yet."""
        rule = self.rule.state_dict() if isinstance(self.rule, Rule) and self.factors else {}
        return {
            "factors": dict(self.factors),
            "rule": rule,
            "losses": None if self._losses is None else self._losses.tolist(),
            "gram": None if self._gram is None else self._gram.tolist(),
            "counts": [self._batches, self._looks, self._steps],
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.factors = dict(state_dict["factors"])
        if isinstance(self.rule, Rule) and state_dict["rule"]:
            self.rule.load_state_dict(state_dict["rule"])
        losses, gram = state_dict["losses"], state_dict["gram"]
        self._losses = None if losses is None else torch.tensor(losses, dtype=torch.float64)
        self._gram = None if gram is None else torch.tensor(gram)
        self._batches, self._looks, self._steps = state_dict["counts"]
