# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two optimizers, two objectives: features that classify rows of two domains, and hide the domain.

`compute_loss` evaluates and logs `self.loss`; a second objective is called as a criterion. Weights
with a schedule follow `trainer.global_step`, which counts the steps of all optimizers together.

python examples/recipes/two_optimizers.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective


class Adversarial(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.body = nn.Sequential(nn.Linear(21, 32), nn.ReLU())
        self.head, self.domain_head = nn.Linear(32, 10), nn.Linear(32, 2)
        self.loss = build_objective(["ce", "logsumexp_penalty"])
        self.domain_loss = build_objective("ce")

    def training_step(self, batch: tuple[Tensor, Tensor, Tensor], batch_idx: int) -> None:
        x, y, domain = batch
        main, adversary = self.optimizers()  # type: ignore[misc]
        features = self.body(x)

        # The adversary learns which domain the features are from.
        self.domain_loss.set_step(self.global_step)
        told = self.domain_loss(logits=self.domain_head(features.detach()), target=domain)
        adversary.zero_grad()
        self.manual_backward(told.total)
        adversary.step()
        self.log("train/domain_loss", told.total.detach())

        # The body classifies, and is rewarded where the adversary errs.
        fooled = self.domain_loss(logits=self.domain_head(features), target=domain).total
        total = self.compute_loss(logits=self.head(features), target=y) - 0.1 * fooled
        main.zero_grad()
        self.manual_backward(total)
        main.step()

    def configure_optimizers(self) -> Any:
        main = [*self.body.parameters(), *self.head.parameters(), *self.loss.parameters()]
        adversary = self.domain_head.parameters()
        return [torch.optim.AdamW(main, lr=1e-2), torch.optim.AdamW(adversary, lr=1e-2)]


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(2000, 20)
    domain = torch.randint(2, (2000,))
    data = TensorDataset(torch.cat([x, domain[:, None] * 2.0], 1), x[:, :10].argmax(1), domain)
    model = Adversarial()
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(model, DataLoader(data, batch_size=50))
    values = {name: float(value) for name, value in trainer.callback_metrics.items()}
    for name in ("train/loss", "train/loss/ce", "train/domain_loss"):
        print(f"{name:20} {values[name]:.3f}")
    assert values["train/loss/ce"] < 1.0  # log 10 = 2.3 at chance


if __name__ == "__main__":
    main()
