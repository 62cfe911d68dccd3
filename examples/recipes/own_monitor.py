# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A monitor of your own: a Lightning callback that reads `module.loss_record`.

`objective.watch` asks for a statistic that no term needs; it comes from the same pass, without
graph.

python examples/recipes/own_monitor.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective


class Sure(L.Callback):
    """Logs the share of rows whose largest probability is above 0.9, as ``sure/share``."""

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        pl_module.loss.watch("sure", "confidence")

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, *unused: Any
    ) -> None:
        record = pl_module.loss_record
        confidence = record.stats.confidence[record.stats.valid]
        self.log("sure/share", (confidence > 0.9).float().mean())  # a tensor: no wait for a GPU

    def teardown(self, trainer: L.Trainer, pl_module: L.LightningModule, stage: str) -> None:
        pl_module.loss.watch("sure")  # no names: no longer


class Classifier(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Linear(20, 10)
        self.loss = build_objective("ce")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=0.1)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 20)
    trainer = L.Trainer(
        max_epochs=5,
        accelerator="cpu",
        callbacks=[Sure()],
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
        enable_model_summary=False,
    )
    trainer.fit(Classifier(), DataLoader(TensorDataset(x, x[:, :10].argmax(1)), batch_size=50))
    share = float(trainer.callback_metrics["sure/share"])
    print(f"share of rows above 0.9 after 5 epochs: {share:.2f}")
    assert share > 0.2


if __name__ == "__main__":
    main()
