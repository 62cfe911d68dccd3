# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The same LightningModule without and with the mixin: with `ce` every loss is equal, bit by bit.

python examples/before_after.py
"""

from __future__ import annotations

import lightning as L
import torch
import torch.nn.functional as F
from data import Digits
from models import DigitsNet
from torch import Tensor

from lightning_losses import LossMixin, build_objective

Batch = tuple[Tensor, Tensor]


class Before(L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = DigitsNet()
        self.losses: list[float] = []

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        loss = F.cross_entropy(self.net(x), y)
        self.log("train/loss", loss, prog_bar=True)
        self.losses.append(float(loss))
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-3)


class After(LossMixin, Before):
    def __init__(self) -> None:
        super().__init__()
        self.loss = build_objective("ce")

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        x, y = batch
        loss = self.compute_loss(logits=self.net(x), target=y)
        self.losses.append(float(loss))
        return loss


def train(module: type[Before]) -> Before:
    L.seed_everything(0, verbose=False)
    model = module()
    trainer = L.Trainer(
        max_epochs=3,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, Digits())
    return model


def main() -> None:
    before, after = train(Before), train(After)
    assert before.losses == after.losses, "the losses differ"
    weights = zip(before.state_dict().values(), after.state_dict().values(), strict=True)
    assert all(torch.equal(a, b) for a, b in weights), "the weights differ"
    print(f"{len(before.losses)} steps: every loss and every weight equal to the last bit")
    print(f"first loss {before.losses[0]:.6f}, last loss {before.losses[-1]:.6f}")


if __name__ == "__main__":
    main()
