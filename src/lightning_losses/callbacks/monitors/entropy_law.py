# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`EntropyLaw`: how much reward is left to a policy that pays for it with entropy."""

from __future__ import annotations

import math
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer

from lightning_losses.callbacks.base.alerts import Action, announce, check_action
from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.reading.events import no_probabilities, row_entropy
from lightning_losses.callbacks.reading.gather import summed
from lightning_losses.metrics.training_curve.entropy_law import entropy_law
from lightning_losses.record import LossRecord

#: With more pairs every second one is dropped: the fit wants their spread, not their number.
MOST_PAIRS = 2000

#: A policy at this part of its ceiling has nothing left; so many pairs before that is said.
EXHAUSTED, ENOUGH = 0.98, 10


class EntropyLaw(Monitor):
    """Fits ``R = -a e^H + b`` to the rewards and mean entropies of the training so far.

    For policy training without entropy control (Cui et al., arXiv 2505.22617). Every
    ``every_n_steps`` the entropy of the step and the value of the reward are a new pair, averaged
    over ranks; a value equal to the last one is taken for the same measurement, so that a metric of
    validation epochs makes a pair an epoch. Logs ``entropy/ceiling`` (``b - a``, the reward with no
    entropy left), ``entropy/law_a``, ``entropy/law_b`` and ``entropy/law_r2`` (part of the variance
    that the fit explains). The ceiling is an estimate, not a promise.

    Where the law does not apply (fewer than 3 pairs, entropy that has not changed, or reward that
    does not rise as entropy falls) nothing is logged, and it says so once at the end of an epoch.
    Reads the device at due steps. Checkpoints keep the pairs.

    Args:
        reward: name of a metric that the step logs by ``self.log``.
        every_n_steps: optimizer steps between pairs.
        action: what is done when the reward has reached 98 % of the ceiling: ``log``, ``warn``,
            ``alert`` or ``stop``; once.
        name: first part of the logged names.

    Raises:
        ValueError: unknown action, ``every_n_steps`` below 1.

    Examples:
        >>> monitor = EntropyLaw(reward="train/reward", every_n_steps=10)
    """

    watches = ("entropy", "logits")
    identity = ("reward", "name")

    def __init__(
        self,
        reward: str = "train/reward",
        every_n_steps: int = 10,
        action: Action = "log",
        name: str = "entropy",
    ) -> None:
        super().__init__(every_n_steps)
        check_action("action", action)
        self.reward, self.action, self.name = reward, action, name
        self.pairs: list[list[float]] = []
        self._problem, self._told = "", False
        self._last = math.nan  # not that of the last pair, which may have been dropped

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Add a pair and fit; on several ranks every rank must come here."""
        entropy, valid = row_entropy(record), record.stats.valid
        if entropy is None:
            self.warn_once(no_probabilities(record, "no entropy to fit to"))
            return
        use = entropy.isfinite() if valid is None else entropy.isfinite() & valid
        reward = torch.as_tensor(trainer.callback_metrics.get(self.reward, math.nan)).to(entropy)
        there = reward.isfinite()
        sums = [torch.where(use, entropy, 0).sum(), use.sum(), torch.where(there, reward, 0), there]
        packed = torch.stack([value.to(entropy.dtype) for value in sums])
        total, rows, rewards, ranks = summed(trainer, packed).tolist()
        if not ranks:
            self._problem = (
                f"there is no metric {self.reward!r} to fit to. Write self.log({self.reward!r}, "
                "value) in the step, or give another name in reward=."
            )
            return
        if rows and rewards / ranks != self._last:
            self._last = rewards / ranks
            self.pairs.append([total / rows, self._last])
            if len(self.pairs) > MOST_PAIRS:
                self.pairs = self.pairs[::2]
        law = entropy_law([h for h, _ in self.pairs], [r for _, r in self.pairs])
        self._problem = law.problem and f"the law is not applicable: {law.problem}."
        if law.problem:
            return
        values = {"ceiling": law.ceiling, "law_a": law.a, "law_b": law.b, "law_r2": law.r2}
        self.publish(trainer, {f"{self.name}/{key}": value for key, value in values.items()})
        if len(self.pairs) < ENOUGH or self._told or not self._last >= EXHAUSTED * law.ceiling > 0:
            return
        self._told = True
        announce(
            trainer,
            self.action,
            "Entropy is exhausted",
            f"EntropyLaw: {self.reward} is {self._last:.4g} at step {self._measured_step}, and "
            f"with no entropy left it would be {law.ceiling:.4g} (R2 {law.r2:.2f} of {law.points} "
            "pairs). More training of this kind will hardly add to it.",
        )

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """If there is nothing to show by now, say why."""
        super().on_train_epoch_end(trainer, pl_module)
        if self._problem:
            self.warn_once(self._problem)

    def state_dict(self) -> dict[str, Any]:
        """The pairs, and whether exhaustion was announced."""
        return {"pairs": [list(p) for p in self.pairs], "last": self._last, "told": self._told}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.pairs = [list(pair) for pair in state_dict["pairs"]]
        self._last, self._told = state_dict["last"], state_dict["told"]
