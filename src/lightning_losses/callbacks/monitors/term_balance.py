# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which term drives training, and do the terms pull together? Their gradients, compared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from torch import Tensor

from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.callbacks.reading.term_gradients import (
    TermGradients,
    gram_of_ranks,
    has_fsdp2,
    term_gradients,
)
from lightning_losses.callbacks.replay.training_state import TrainingState
from lightning_losses.evaluation.rows import Rows
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord


class TermBalanceMonitor(Monitor):
    """Logs the length, share and pairwise cosine of the gradients of the weighted terms.

    The gradients are compared where the model hands over to the losses, not at its parameters: with
    respect to the named tensors of ``compute_loss`` that have a graph, each as far back as names
    go. With ``hidden=`` that is the hidden states, with ``logits=`` the logits, with both
    ``logits=`` and the ``features=`` they were made from the features (through the head). All the
    trunk learns passes through there; a direction that the trunk amplifies more counts no more
    than any other, which only a backward pass a term through the whole trunk would tell. If no one
    tensor is behind all others, the gradients are taken at several as one vector. To compare at an
    earlier tensor, pass it too, under any name, such as ``trunk=h``; no term has to read it.

    Logged every ``every_n_steps``, over the rows of all ranks:

    - ``term_balance/norm/<term>``: Euclidean length of the weighted term's gradient, as it is in
      the total (before a GradScaler, and of this batch alone under accumulation);
    - ``term_balance/share/<term>``: that over the sum of all lengths, a fraction;
    - ``term_balance/cosine/<a>:<b>``: 1 if two terms pull together, -1 if they are opposed, 0 if
      one has no gradient, such as weight 0. Left out, which is said once, where the two terms
      reach no tensor in common.

    At due steps each term is evaluated a second time, on detached tensors, after which random
    numbers, buffers and attributes of the objective are as they were: losses with a memory of
    samples or draws of their own are not disturbed. A loss that draws from the global generator
    draws other numbers than in the step, which are then put back. It costs a forward and a backward
    pass of the terms, and with materialised logits a tensor of their size a term. Terms on
    parameters (penalties) or lists (attention) have no gradient here and show as 0. Of several
    ``compute_loss`` calls in a step the first is measured. Not seen, which is said once: objectives
    of one term, and steps or objectives within ``torch.compile``.

    Args:
        every_n_steps: optimizer steps between measurements.
        name: first part of the logged names; give a second monitor another one.

    Examples:
        >>> monitor = TermBalanceMonitor(every_n_steps=50)
    """

    identity = ("every_n_steps", "name")

    def __init__(self, every_n_steps: int = 50, name: str = "term_balance") -> None:
        super().__init__(every_n_steps)
        self.name = name
        self._gradients: TermGradients | None = None
        self._failure: str | None = None

    def start_measuring(self, module: LightningModule) -> None:
        """Ask the objective to show its next evaluation."""
        self.stop_measuring(module)
        objective = self.objective(module)
        if objective is None:
            return
        self._failure = "the step called no compute_loss with gradient outside torch.compile"
        if len(objective.terms) < 2:
            self._failure = "the objective has one term, so there is nothing to compare"
        elif has_fsdp2(module):
            self._failure = "FSDP's hooks do not allow gradients of the terms apart"
        else:
            objective.show(
                self.state_key,
                lambda named, batch, normalizer: self._look(objective, named, batch, normalizer),
            )

    def stop_measuring(self, module: LightningModule) -> None:
        """Ask it to show no more."""
        self.mark_seen(module)
        objective = self.objective(module)
        if objective is not None:
            objective.show(self.state_key, None)

    def _look(
        self,
        objective: Objective,
        named: Mapping[str, Any],
        batch: Rows,
        normalizer: float | Tensor | None,
    ) -> None:
        """Compare the terms; whatever goes wrong, training goes on."""
        objective.show(self.state_key, None)
        state = TrainingState(objective, batch.device)
        try:
            self._gradients = term_gradients(objective, named, batch, normalizer)
            if self._gradients is None:
                self._failure = (
                    "no named tensor has a graph: logits, hidden or features must come from the "
                    "model in the training step"
                )
        except Exception as error:
            self._gradients = None
            self._failure = f"a term could not be evaluated again ({type(error).__name__}: {error})"
        finally:
            state.put_back()

    def measure(self, trainer: Trainer, module: LightningModule, record: LossRecord) -> None:
        """Log what was found in the step; on several ranks every rank must come here."""
        gradients, self._gradients = self._gradients, None
        if gradients is None:
            self.warn_once(f"{self._failure}.")
            return
        gram = gram_of_ranks(trainer, gradients.gram)
        norms = gram.diagonal().clamp(min=0).sqrt()
        share = norms / torch.where(norms.sum() > 0, norms.sum(), 1.0)
        values: dict[str, Tensor] = {}
        for i, term in enumerate(gradients.terms):
            values[f"norm/{term}"] = norms[i]
            values[f"share/{term}"] = share[i]
        for (i, a), (j, b) in combinations(enumerate(gradients.terms), 2):
            if (
                gradients.reach[i]
                and gradients.reach[j]
                and not gradients.reach[i] & gradients.reach[j]
            ):
                self.warn_once(
                    f"{a} reaches {', '.join(sorted(gradients.reach[i]))} and {b} reaches "
                    f"{', '.join(sorted(gradients.reach[j]))}, which do not come from each other, "
                    "so their lengths are not of one kind and there is no cosine. Pass the "
                    "tensor that both are made from, as compute_loss(..., trunk=...)."
                )
                continue
            both = norms[i] * norms[j]
            cosine = gram[i, j] / torch.where(both > 0, both, 1.0)
            values[f"cosine/{a}:{b}"] = cosine.clamp(-1, 1)
        self.publish(trainer, {f"{self.name}/{key}": v.float() for key, v in values.items()})

    def on_exception(
        self, trainer: Trainer, pl_module: LightningModule, exception: BaseException
    ) -> None:
        """Leave the objective as it was found."""
        super().on_exception(trainer, pl_module, exception)
        self.teardown(trainer, pl_module, "fit")

    def teardown(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """The same."""
        super().teardown(trainer, pl_module, stage)
        for objective in objectives_of(pl_module):
            objective.show(self.state_key, None)
        self._gradients = None
