# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`EntropyTarget`: moves weights of entropy terms so that entropy stays where it is wanted."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_losses.callbacks.base.monitor import RecordReader
from lightning_losses.callbacks.reading.events import no_probabilities, row_entropy
from lightning_losses.callbacks.reading.gather import summed
from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.record import LossRecord


class Coefficient:
    """A coefficient that grows while entropy is on the wrong side of a target, else shrinks.

    The rule of Skywork-OR1 (arXiv 2505.22312). Without trainer or tensors, so that a loop of one's
    own can use it.

    Args:
        target: entropy in nats.
        delta: what the coefficient moves by in a step.
        initial: where it begins.
        low: its smallest value.
        high: its largest value.
        above: the wrong side is above the target; else below it.

    Raises:
        ValueError: values out of order.
    """

    def __init__(
        self,
        target: float,
        delta: float,
        initial: float,
        low: float,
        high: float,
        above: bool = False,
    ) -> None:
        if not 0 <= low <= initial <= high < math.inf:
            raise ValueError(
                "The coefficient must have 0 <= min_coefficient <= initial_coefficient <= "
                f"max_coefficient, got {low}, {initial}, {high}; write 0, 0, 0.005."
            )
        if not (target > 0 and delta > 0):
            raise ValueError(f"target and delta must be positive, got {target} and {delta}.")
        self.target, self.delta, self.low, self.high = target, delta, low, high
        self.initial, self.above = initial, above
        self.reset()

    def reset(self) -> None:
        """Begin anew."""
        self.value, self.entropy = self.initial, math.nan

    @property
    def applied(self) -> float:
        """The coefficient where the last entropy was on the wrong side, else 0."""
        return self.value if self._wrong(self.entropy) else 0.0

    def update(self, entropy: float) -> None:
        """Take the mean entropy of one optimizer step; NaN, of no rows, changes nothing."""
        if math.isnan(entropy):
            return
        self.entropy = entropy
        step = self.delta if self._wrong(entropy) else -self.delta
        self.value = min(max(self.value + step, self.low), self.high)

    def _wrong(self, entropy: float) -> bool:
        return entropy > self.target if self.above else entropy < self.target


class EntropyTarget(RecordReader):
    """Sets the weight of an entropy bonus after each optimizer step, by the entropy of that step.

    With ``upper`` entropy is kept from both sides: a second coefficient, by the same rule turned
    round, is the weight of ``upper_term``, an `entropy_min`, after steps whose entropy was above
    it.

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

    Logs ``entropy_target/coefficient`` (after this step; ``entropy_target/upper_coefficient``) and
    ``entropy_target/entropy`` (nats) at each optimizer step, and the mixin logs
    ``train/weight/<term>``.

    Args:
        target: entropy in nats.
        term: name of the term whose weight moves.
        delta: what the coefficient moves by in a step.
        initial_coefficient: where it begins.
        min_coefficient: its smallest value.
        max_coefficient: its largest value.
        upper: entropy in nats that is not to be exceeded, at least the target; None for no bound.
        upper_term: name of the term whose weight moves for that.
        name: first part of the logged names; give a second one another.

    Raises:
        ValueError: values out of order; when the fit begins, an objective without that term, or
            with weight 0 for it.

    Examples:
        >>> controller = EntropyTarget(target=1.0, term="entropy_bonus", max_coefficient=0.01)
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
        upper: float | None = None,
        upper_term: str = "entropy_min",
        name: str = "entropy_target",
    ) -> None:
        super().__init__()
        self.term, self.name = term, name
        self.coefficient = Coefficient(
            target, delta, initial_coefficient, min_coefficient, max_coefficient
        )
        #: Of each term that moves, the coefficient.
        self.coefficients = {term: self.coefficient}
        if upper is not None:
            if not upper >= target or upper_term == term:
                raise ValueError(
                    "upper must be at least target, and upper_term another term, got "
                    f"{upper} beside {target} and {upper_term!r} beside {term!r}."
                )
            self.coefficients[upper_term] = Coefficient(
                upper, delta, initial_coefficient, min_coefficient, max_coefficient, above=True
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
        usually = (("term", "entropy_bonus"), ("upper_term", "entropy_min"))
        for name, (option, usual) in zip(self.coefficients, usually, strict=False):
            if name not in terms:
                raise ValueError(
                    f"EntropyTarget moves the weight of a term {name!r}; the objective has "
                    f"{', '.join(terms)}. Write +loss={usual}, or "
                    f"callbacks.entropy_target.{option}=NAME."
                )
            if not terms[name].schedule(0) > 0:
                raise ValueError(
                    f"The term {name!r} has weight 0, which no scale makes anything else: write "
                    f"loss.{name}.weight=1."
                )

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Steps are counted from here, or from where a checkpoint was taken."""
        super().on_train_start(trainer, pl_module)
        self._step = trainer.global_step

    def reset(self) -> None:
        super().reset()
        for coefficient in self.coefficients.values():
            coefficient.reset()
        self._sums = torch.zeros(2)

    def on_train_batch_start(
        self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int
    ) -> None:
        """Set the scale of the term, so that its weight is the coefficient."""
        self.start_measuring(pl_module)
        objective = self.objective(pl_module)
        if objective is not None:
            terms = dict(objective.named_terms())
            for name, coefficient in self.coefficients.items():
                planned = float(terms[name].schedule(trainer.global_step))
                terms[name].scale = coefficient.applied / planned if planned > 0 else 0.0

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
        for coefficient in self.coefficients.values():
            coefficient.update(total / rows if rows else math.nan)
        entropy = self.coefficient.entropy
        values = {
            "coefficient": self.coefficient.value,
            "entropy": 0.0 if math.isnan(entropy) else entropy,
        }
        for coefficient in list(self.coefficients.values())[1:]:
            values["upper_coefficient"] = coefficient.value
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
        if stage == "fit":
            for name in self.coefficients.keys() & terms.keys():
                terms[name].scale = 1.0

    def _add(self, record: LossRecord) -> None:
        entropy, valid = row_entropy(record), record.stats.valid
        if entropy is None:
            self.warn_once(no_probabilities(record, "no entropy to go by"))
            return
        use = entropy.isfinite() if valid is None else entropy.isfinite() & valid
        both = torch.stack([torch.where(use, entropy, 0).sum(), use.sum().to(entropy.dtype)])
        self._sums = self._sums.to(both.device) + both.float()

    def state_dict(self) -> dict[str, Any]:
        """The coefficients, the last entropy, and the sums of an unfinished accumulation."""
        c, *upper = self.coefficients.values()
        state = {"coefficient": c.value, "entropy": c.entropy, "sums": self._sums.tolist()}
        return state | ({"upper_coefficient": upper[0].value} if upper else {})

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken; within the limits of now."""
        names = ("coefficient", "upper_coefficient")
        for name, c in zip(names, self.coefficients.values(), strict=False):
            value = state_dict.get(name, c.initial)
            c.value, c.entropy = min(max(value, c.low), c.high), state_dict["entropy"]
        self._sums = torch.tensor(state_dict["sums"])
