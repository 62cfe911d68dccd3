# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""LightningCLI: losses in its YAML or on its command line, callbacks as well.

python examples/recipes/cli.py fit --config examples/recipes/cli.yaml
python examples/recipes/cli.py fit --config examples/recipes/cli.yaml --model.loss '[ce,focal]'

Needs `pip install "jsonargparse[signatures]"`. `model.loss` is what `build_objective` takes: a key,
a list of keys, or a mapping from a term's name to its `_target_`, arguments and weight.
"""

from __future__ import annotations

import sys
from typing import Any

import lightning as L
import torch
from lightning.pytorch.cli import LightningCLI
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective


class Classifier(LossMixin, L.LightningModule):
    def __init__(self, loss: str | list[str] | dict[str, Any] = "ce", lr: float = 1e-2) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.net, self.lr = nn.Linear(20, 10), lr
        self.loss = build_objective(loss)

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameter_groups(), lr=self.lr)


class Rows(L.LightningDataModule):
    def __init__(self, batch_size: int = 50) -> None:
        super().__init__()
        self.batch_size = batch_size

    def train_dataloader(self) -> DataLoader[Any]:
        x = torch.randn(1000, 20, generator=torch.Generator().manual_seed(0))
        return DataLoader(TensorDataset(x, x[:, :10].argmax(1)), self.batch_size)


def main(arguments: list[str] | None = None) -> LightningCLI:
    return LightningCLI(
        Classifier,
        Rows,
        seed_everything_default=0,
        save_config_kwargs={"overwrite": True},
        args=sys.argv[1:] if arguments is None else arguments,
    )


if __name__ == "__main__":
    main()
