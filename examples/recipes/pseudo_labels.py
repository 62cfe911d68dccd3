# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive learning in batches without two rows of one cluster (G-SimCLR, arXiv 2009.12007).

`DistinctLabelSampler` is a DistributedSampler: the same line does for any number of devices.

python examples/recipes/pseudo_labels.py
"""

from __future__ import annotations

from typing import Any

import lightning as L
import torch
from sklearn.cluster import KMeans
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective
from lightning_losses.samplers import DistinctLabelSampler

BATCH, CLUSTERS = 32, 64  # at least as many clusters as a batch has rows, on all devices


class Contrastive(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 8))
        self.loss = build_objective("nt_xent")

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, cluster = batch
        assert len(cluster.unique()) == len(cluster) == BATCH
        one, two = (self.net(x + 0.1 * torch.randn_like(x)) for _ in range(2))
        return self.compute_loss(features=one, other_features=two)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


def main() -> None:
    torch.manual_seed(0)
    x = torch.randn(1000, 20)  # of images: the codes of an autoencoder, which the paper clusters
    clusters = torch.as_tensor(KMeans(CLUSTERS, n_init=1, random_state=0).fit_predict(x)).long()
    sampler = DistinctLabelSampler(clusters, BATCH)
    loader = DataLoader(TensorDataset(x, clusters), batch_size=BATCH, sampler=sampler)
    quiet: dict[str, Any] = {"logger": False, "enable_checkpointing": False}
    quiet |= {"enable_progress_bar": False, "enable_model_summary": False}
    trainer = L.Trainer(max_epochs=2, accelerator="cpu", **quiet)
    trainer.fit(Contrastive(), loader)
    print(f"{trainer.global_step} batches of {BATCH} rows of as many clusters")
    assert sampler.epoch == 1  # Lightning has called set_epoch
    assert trainer.global_step == 2 * len(loader) > 20


if __name__ == "__main__":
    main()
