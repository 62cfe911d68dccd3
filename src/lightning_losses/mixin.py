# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`LossMixin`: what a LightningModule adds to train on an objective with one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord
from lightning_losses.schedules import Constant

if TYPE_CHECKING:
    from lightning.pytorch import LightningModule as _Base
else:
    _Base = object  # first among the bases of the user's module, which brings LightningModule


class LossMixin(_Base):
    """Adds `compute_loss` to a LightningModule that holds an `Objective` as ``self.loss``.

    No ``__init__``, no overridden hook, nothing in the ``state_dict``::

        class Classifier(LossMixin, L.LightningModule):
            def __init__(self, net, loss):
                super().__init__()
                self.net, self.loss = net, loss

            def training_step(self, batch, _):
                x, y = batch
                return self.compute_loss(logits=self.net(x), target=y)
    """

    if TYPE_CHECKING:
        loss: Objective

    def compute_loss(
        self, logits: Tensor | None = None, target: Tensor | None = None, **named: Any
    ) -> Tensor:
        """Evaluate ``self.loss`` on named tensors, log it, and return the total with graph.

        Works in automatic and manual optimisation, in training, validation and test steps, under
        Fabric, and several times a step. Logged are ``{stage}/loss``, ``{stage}/loss/{term}`` where
        there is more than one term, and ``{stage}/weight/{term}`` where it moves.

        Args:
            logits: ``(..., C)``; or ``hidden=`` and ``head_weight=``.
            target: ``(...)`` class indices, real values, or soft targets.
            **named: see `lightning_losses.named_tensors`.

        Raises:
            TypeError: if ``self.loss`` is no Objective.
            ValueError: see `Objective.forward`.
        """
        if logits is not None:
            named["logits"] = logits
        if target is not None:
            named["target"] = target
        capture: Callable[[dict[str, Any]], None] | None = self.__dict__.get("_capture")
        if capture is not None:
            capture(named)
        objective = self.loss
        if not isinstance(objective, Objective):
            raise TypeError(
                f"compute_loss evaluates self.loss, which must be an Objective; found "
                f"{type(objective).__name__}. Write self.loss = build_objective('ce'); to compile "
                "it, self.loss.compile()."
            )
        if objective.reads_module:
            named.setdefault("module", self)
        self._start_step(objective)
        record: LossRecord = objective(**named)
        self._publish(record)
        return record.total

    def parameter_groups(self) -> list[dict[str, Any]]:
        """All trainable parameters for an optimizer, those of losses with own options apart.

        ``torch.optim.AdamW(self.parameter_groups(), lr=1e-3)``; a term's options come from its
        ``optimizer``, such as ``loss.proxy.optimizer.lr=0.1``.
        """
        own = [(list(t.loss.parameters()), t.optimizer) for _, t in self.loss.named_terms()]
        own = [(parameters, options) for parameters, options in own if parameters and options]
        apart = {id(p) for parameters, _ in own for p in parameters}
        rest = [p for p in self.parameters() if p.requires_grad and id(p) not in apart]
        return [{"params": rest}] + [{"params": p, **options} for p, options in own]

    @property
    def loss_record(self) -> LossRecord | None:
        """The record of the last `compute_loss`, without graph; what monitors read."""
        return self.__dict__.get("_loss_record")

    # Compiled code must neither log (torch 2.13 with lightning 2.6.6 crashes) nor trace schedules.
    @torch.compiler.disable
    def _start_step(self, objective: Objective) -> None:
        trainer = self._trainer
        if trainer is not None:
            objective.set_step(trainer.global_step)

    @torch.compiler.disable
    def _publish(self, record: LossRecord) -> None:
        record = record.detach()
        self.__dict__["_loss_record"] = record  # past nn.Module.__setattr__: no state of the user's
        trainer = self._trainer
        mute = trainer is None or trainer.barebones or trainer.predicting
        in_hook = not mute and self._current_fx_name
        if not in_hook and self._fabric is None:
            return
        stage = self._stage()
        total = record.total
        if total.ndim:
            total = total.sum() / record.num_valid.clamp(min=1)

        # Epoch means weigh batches by rows that count; in training they are not taken, and asking
        # a device for the number would stall every step. There is no mean of nothing.
        rows = record.num_rows if stage == "train" else max(1, int(record.num_valid))

        def log(name: str, value: Tensor, prog_bar: bool = False) -> None:
            self.log(
                f"{stage}/{name}",
                value,
                prog_bar=prog_bar,
                batch_size=rows,
                # In training the record holds the global value already.
                sync_dist=stage != "train",
            )

        log("loss", total, prog_bar=True)
        # Each call of self.log costs more than a small loss, so the rest only where it says more.
        if len(record.terms) > 1:
            for name, value in record.terms.items():
                log(f"loss/{name}", value)
        if stage == "train":
            for name, term in self.loss.named_terms():
                if term.scale != 1.0 or not isinstance(term.schedule, Constant):
                    log(f"weight/{name}", record.weights[name].float())

    def _stage(self) -> str:
        trainer = self._trainer
        if trainer is None:
            return "train" if self.training else "val"
        if trainer.testing:
            return "test"
        return "val" if trainer.validating or trainer.sanity_checking else "train"
