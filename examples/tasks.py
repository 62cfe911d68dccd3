# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two LightningModules with `LossMixin`: what a user's own training code looks like."""

from __future__ import annotations

import lightning as L
import torch
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from models import DigitsNet, TinyDecoder
from torch import Tensor

from lightning_losses import LossMixin, Objective

Batch = tuple[Tensor, Tensor]


class Classifier(LossMixin, L.LightningModule):
    """Images (B, 1, 8, 8) to classes; passes whatever a loss of the catalogue may ask for."""

    def __init__(self, net: DigitsNet, loss: Objective, lr: float = 1e-3) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        features = self.net.features(x)
        logits = self.net.head(features)
        self.log_accuracy(logits, y)
        return self.compute_loss(
            logits=logits, target=y, features=features, input=x, model=self.net
        )

    validation_step = test_step = training_step

    def log_accuracy(self, logits: Tensor, y: Tensor) -> None:
        if not self.training:
            accuracy = (logits.argmax(-1) == y).float().mean()
            self.log(f"{self.stage}/accuracy", accuracy, batch_size=len(y), sync_dist=True)

    @property
    def stage(self) -> str:
        return "test" if self.trainer.testing else "val"

    def configure_optimizers(self) -> OptimizerLRScheduler:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


class LanguageModel(LossMixin, L.LightningModule):
    """Bytes (B, T) to the next byte, from hidden states and the head: no logits are held."""

    def __init__(self, net: TinyDecoder, loss: Objective, lr: float = 1e-3) -> None:
        super().__init__()
        self.net, self.loss, self.lr = net, loss, lr

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        tokens, target = batch
        hidden = self.net(tokens)
        return self.compute_loss(hidden=hidden, head_weight=self.net.lm_head.weight, target=target)

    validation_step = test_step = training_step

    def configure_optimizers(self) -> OptimizerLRScheduler:
        optimizer = torch.optim.AdamW(self.parameter_groups(), lr=self.lr)
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, self.lr, max(steps, 2))
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step"},
        }
