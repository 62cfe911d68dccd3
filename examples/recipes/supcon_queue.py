# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Supervised contrastive learning with a queue: small batches, many pairs.

`ref_features` and `ref_target` take the place of the batch as what its rows are compared with.

python examples/recipes/supcon_queue.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

SIZE, DIM = 256, 8


class Embedder(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, DIM))
        self.loss = build_objective("supcon")
        # Random directions without a label (-1): nobody's positives, until the queue is full.
        self.register_buffer("queue", torch.randn(SIZE, DIM), persistent=False)
        self.register_buffer("labels", torch.full((SIZE,), -1), persistent=False)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        features = self.net(x)
        total = self.compute_loss(
            features=features, target=y, ref_features=self.queue, ref_target=self.labels
        )
        # On several devices: self.all_gather(features.detach()).flatten(0, 1), and y likewise.
        self.queue = torch.cat([self.queue, features.detach()])[-SIZE:]
        self.labels = torch.cat([self.labels, y])[-SIZE:]
        return total

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=3e-3)


def purity(features: Tensor, y: Tensor) -> float:
    """Share of rows whose nearest other row is of their class."""
    unit = nn.functional.normalize(features)
    nearest = (unit @ unit.T).fill_diagonal_(-2).argmax(1)
    return float((y[nearest] == y).float().mean())


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 20)
    y = x[:, :4].argmax(1)
    model = Embedder()
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=10, accelerator="cpu", **quiet)
    with torch.no_grad():
        before = purity(model.net(x), y)
    trainer.fit(model, DataLoader(TensorDataset(x, y), batch_size=16, shuffle=True))
    with torch.no_grad():
        after = purity(model.net(x), y)
    print(f"nearest neighbour of the same class: {before:.2f} before, {after:.2f} after")
    assert after > before + 0.3


if __name__ == "__main__":
    main()
