# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every monitor at once, as configured: it changes no bit, and a run goes on exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
import torchmetrics
from hydra import compose, initialize_config_module
from hydra.utils import instantiate
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset
from training import portrait, require_equal, train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.config.catalogue import keys

#: Controllers act, and the dashboard only speaks to Weights & Biases.
CONTROLLERS = ["elastic_memory", "entropy_target", "perp_grad", "step_radius_controller", "wandb"]
MONITORS = [key for key in keys("callbacks") if key not in CONTROLLERS]
#: Often, so that every monitor measures several times in a short run.
OFTEN = 2


def monitors() -> list[L.Callback]:
    with initialize_config_module("lightning_losses.conf", version_base="1.3"):
        configs = compose(overrides=[f"+callbacks={MONITORS}".replace("'", "").replace(" ", "")])
    found = []
    for config in configs.callbacks.values():
        if "every_n_steps" in config:
            config.every_n_steps = OFTEN
        if "reward" in config:
            config.reward = "train/loss"
        found.append(instantiate(config))
    return found


class Everything(LossMixin, L.LightningModule):
    """Convolution, batch norm, dropout, attention, a metric and logging of its own, two terms."""

    dropout = 0.1

    def __init__(self) -> None:
        super().__init__()
        drop = nn.Dropout(self.dropout)
        self.body = nn.Sequential(nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), drop)
        self.query_key_value = nn.Linear(8, 24)
        self.head = nn.Linear(8, 4)
        self.accuracy = torchmetrics.Accuracy("multiclass", num_classes=4)
        self.loss = build_objective(["ce", "logsumexp_penalty"])

    def training_step(self, batch: list[Tensor], index: int) -> Tensor:
        x, y = batch
        tokens = self.body(x).flatten(2).transpose(1, 2)
        query, key, value = self.query_key_value(tokens).chunk(3, -1)
        seen = F.scaled_dot_product_attention(query[:, None], key[:, None], value[:, None])
        features = seen[:, 0].mean(1)
        logits = self.head(features)
        self.accuracy(logits, y)
        self.log("accuracy", self.accuracy)
        self.log("noise", torch.rand(()))  # a random number that monitors must not move
        places = torch.arange(8 * index, 8 * index + len(y))
        named = {"features": features, "group_id": y % 2, "sample_index": places}
        return self.compute_loss(logits=logits, target=y, **named)

    def validation_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.training_step(batch, index)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.AdamW(self.parameters(), lr=0.01)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1)]

    def train_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(0)
        data = torch.randn(64, 1, 6, 6, generator=g), torch.randint(4, (64,), generator=g)
        return DataLoader(TensorDataset(*data), 8)

    val_dataloader = train_dataloader

    def ood_dataloader(self) -> DataLoader[Any]:
        return DataLoader(self.train_dataloader().dataset, 8, shuffle=True)  # draws at random


class Repeatable(Everything):
    """Without random numbers, whose state Lightning's checkpoints do not hold."""

    dropout = 0.0


# No bit of what the module owns, logs by itself or draws at random; own names are left out.
@pytest.mark.filterwarnings("ignore")
def test_all_together_change_no_bit() -> None:
    own = tuple(f"{key}/" for key in [*MONITORS, "post_hoc", "forecast"])
    watched = train_twice(Everything, monitors(), own=own, max_epochs=3, num_sanity_val_steps=0)
    logged = {name.split("/")[0] for step in watched.logged for name in step}
    # Each has measured, but for those that need a longer run or another kind of training.
    late = {"scaling_forecast", "entropy_law", "drift"}  # drift speaks in validate and test
    named = {"post_hoc_calibration": "post_hoc"}
    assert {named.get(key, key) for key in MONITORS if key not in late} <= logged


@pytest.mark.filterwarnings("ignore")
def test_all_together_go_on_from_a_checkpoint(tmp_path: Path) -> None:
    whole = train(Repeatable, monitors(), max_epochs=4, num_sanity_val_steps=0)
    half = train(Repeatable, monitors(), max_epochs=2, num_sanity_val_steps=0)
    half.trainer.save_checkpoint(tmp_path / "half.ckpt")
    rest = train(
        Repeatable,
        monitors(),
        ckpt_path=tmp_path / "half.ckpt",
        max_epochs=4,
        num_sanity_val_steps=0,
    )
    for one, other in zip(whole.trainer.callbacks, rest.trainer.callbacks, strict=True):  # type: ignore[attr-defined]
        require_equal(type(one).__name__, one.state_dict(), other.state_dict())
    require_equal("module", portrait(whole.module), portrait(rest.module))
