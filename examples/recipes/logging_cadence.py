# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How often is what logged? The trainer says it for losses, each monitor for itself.

`log_every_n_steps` of the trainer is the cadence of `train/loss`; a monitor writes what it measures
once, at its own step, whatever that is.

python examples/recipes/logging_cadence.py
"""

from __future__ import annotations

import csv
import tempfile
from pathlib import Path

import lightning as L
import torch
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import EntropyMonitor, LogitHealthMonitor


class Classifier(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net, self.loss = nn.Linear(20, 10), build_objective("ce")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=1e-2)


def main() -> None:
    x = torch.randn(400, 20)
    loader = DataLoader(TensorDataset(x, x[:, :10].argmax(1)), 10)
    with tempfile.TemporaryDirectory() as folder:
        trainer = L.Trainer(
            max_epochs=1,
            accelerator="cpu",
            log_every_n_steps=20,  # train/loss
            callbacks=[EntropyMonitor(every_n_steps=5), LogitHealthMonitor(every_n_steps=15)],
            logger=CSVLogger(folder, name="", version=""),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Classifier(), loader)
        with (Path(folder) / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
    steps = {
        name: [int(row["step"]) for row in rows if row[name]]
        for name in ("train/loss", "entropy/mean", "logit_health/max_logit")
    }
    for name, at in steps.items():
        print(f"{name:24} {at}")
    assert steps["train/loss"] == [19, 39]
    assert steps["entropy/mean"] == list(range(0, 40, 5))
    assert steps["logit_health/max_logit"] == [0, 15, 30]


if __name__ == "__main__":
    main()
