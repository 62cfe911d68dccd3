# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`EntropyTarget`: moves the weight of an entropy bonus so that entropy stays above a target."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_losses.callbacks.base.monitor import RecordReader, objectives_of
from lightning_losses.callbacks.reading.events import no_probabilities, row_entropy
from lightning_losses.callbacks.reading.gather import summed
from lightning_losses.record import LossRecord


class Coefficient:
    """A coefficient that grows while entropy is below a target and shrinks while it is not.

    The rule of Skywork-OR1 (arXiv 2505.22312). Without trainer or tensors, so that a loop of one's
    own can use it.

    Args:
        target: entropy in nats.
        delta: what the coefficient moves by in a step.
        initial: where it begins.
        low: its smallest value.
        high: its largest value.

    Raises:
        ValueError: values out of order.
    """

    def __init__(self, target: float, delta: float, initial: float, low: float, high: float):
        if not 0 <= low <= initial <= high < math.inf:
            raise ValueError(
                "The coefficient must have 0 <= min_coefficient <= initial_coefficient <= "
                f"max_coefficient, got {low}, {initial}, {high}; write 0, 0, 0.005."
            )
        if not (target > 0 and delta > 0):
            raise ValueError(f"target and delta must be positive, got {target} and {delta}.")
        self.target, self.delta, self.low, self.high = target, delta, low, high
        self.initial = initial
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.value, self.entropy = self.initial, math.nan

    @property
    def applied(self) -> float:
        """The coefficient where the last entropy was below the target, else 0."""
        return self.value if self.entropy < self.target else 0.0

    def update(self, entropy: float) -> None:
        """Take the mean entropy of one optimizer step; NaN, of no rows, changes nothing."""
        if math.isnan(entropy):
            return
        self.entropy = entropy
        step = self.delta if entropy < self.target else -self.delta
        self.value = min(max(self.value + step, self.low), self.high)


class EntropyTarget(RecordReader):
    """Sets the weight of an entropy bonus after each optimizer step, by the entropy of that step.

    The coefficient grows by ``delta`` after a step whose mean entropy was below ``target``, shrinks
    by ``delta`` after any other, and is the weight of the term in the next step if entropy was
    below the target; else that weight is 0 (Skywork-OR1, arXiv 2505.22312). It takes the place of
    the weight in the config, which only has to be positive. A target of 0.2 nats, the recipe of
    Skywork-OR1, is far below the entropy of most models early in training and then does nothing:
    set it near what is to be kept, say half of the entropy at the start.

    Entropy is the mean over the rows that count, of all ranks and of all batches of an accumulated
    step, so the coefficient is the same on every rank. Rows with an entropy of NaN are left out; a
    step without rows changes nothing. Reads the device once an optimizer step. Of several
    ``compute_loss`` calls in a batch the last counts. The state is in checkpoints.

    Logs ``entropy_target/coefficient`` (after this step) and ``entropy_target/entropy`` (nats) at
    each optimizer step, and the mixin logs ``train/weight/<term>``.

    Args:
        target: entropy in nats.
        term: name of the term whose weight moves.
        delta: what the coefficient moves by in a step.
        initial_coefficient: where it begins.
        min_coefficient: its smallest value.
        max_coefficient: its largest value.
        name: first part of the logged names; give a second one another.

    Raises:
        ValueError: values out of order; when the fit begins, an objective without that term, or
            with weight 0 for it.
    """

    watches = ("entropy", "logits")
    identity = ("term",)

    def __init__(
        self,
        target: float = 0.2,
        term: str = "entropy_bonus",
        delta: float = 1e-4,
        initial_coefficient: float = 0.0,
        min_coefficient: float = 0.0,
        max_coefficient: float = 0.005,
        name: str = "entropy_target",
    ) -> None:
        super().__init__()
        self.term, self.name = term, name
        self.coefficient = Coefficient(
            target, delta, initial_coefficient, min_coefficient, max_coefficient
        )
        # Of entropy and of rows since the last optimizer step; stays on the device until then.
        self._sums = torch.zeros(2)
        self._step = 0

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Complain while it is cheap."""
        objective = self.objective(pl_module)
        if objective is None:
            return
        terms = dict(objective.named_terms())
        if self.term not in terms:
            raise ValueError(
                f"EntropyTarget moves the weight of a term {self.term!r}; the objective has "
                f"{', '.join(terms)}. Write +loss=entropy_bonus, or callbacks.entropy_target.term="
                "NAME."
            )
        if not terms[self.term].schedule(0) > 0:
            raise ValueError(
                f"The term {self.term!r} has weight 0, which no scale makes anything else: write "
                f"loss.{self.term}.weight=1."
            )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are counted from here, or from where a checkpoint was taken."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def reset(self) -> None:
        super().reset()
        self.coefficient.reset()
        self._sums = torch.zeros(2)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the scale of the term, so that its weight is the coefficient."""
        self.start_measuring(pl_module)
        objective = self.objective(pl_module)
        if objective is not None:
            term = dict(objective.named_terms())[self.term]
            planned = float(term.schedule(trainer.global_step))
            term.scale = self.coefficient.applied / planned if planned > 0 else 0.0

    def on_train_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
    ) -> None:
        """Add this batch; after an optimizer step, move."""
        record = self.new_record(pl_module)
        self.stop_measuring(pl_module)
        if record is not None:
            self._add(record)
        if trainer.global_step == self._step:
            return
        self._step = trainer.global_step
        sums = self._sums.to(pl_module.device)
        self._sums = torch.zeros_like(sums)
        total, rows = summed(trainer, sums).tolist()
        self.coefficient.update(total / rows if rows else math.nan)
        entropy = self.coefficient.entropy
        values = {
            "coefficient": self.coefficient.value,
            "entropy": 0.0 if math.isnan(entropy) else entropy,
        }
        self.publish(trainer, {f"{self.name}/{key}": value for key, value in values.items()})

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """The same as in the end: Lightning calls no teardown then."""
        super().on_exception(trainer, pl_module, exception)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Give the term back with the weight of the config."""
        super().teardown(trainer, pl_module, stage)
        terms = dict(one for o in objectives_of(pl_module)[:1] for one in o.named_terms())
        if stage == "fit" and self.term in terms:
            terms[self.term].scale = 1.0

    def _add(self, record: LossRecord) -> None:
        entropy, valid = row_entropy(record), record.stats.valid
        if entropy is None:
            self.warn_once(no_probabilities(record, "no entropy to go by"))
            return
        use = entropy.isfinite() if valid is None else entropy.isfinite() & valid
        both = torch.stack([torch.where(use, entropy, 0).sum(), use.sum().to(entropy.dtype)])
        self._sums = self._sums.to(both.device) + both.float()

    def state_dict(self) -> dict[str, Any]:
        """The coefficient, the last entropy, and the sums of an unfinished accumulation."""
        c = self.coefficient
        return {"coefficient": c.value, "entropy": c.entropy, "sums": self._sums.tolist()}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; within the limits of now."""
        c = self.coefficient
        c.value = min(max(state_dict["coefficient"], c.low), c.high)
        c.entropy, self._sums = state_dict["entropy"], torch.tensor(state_dict["sums"])
