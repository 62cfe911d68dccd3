# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two tasks after one another: what the first needed is measured at its end, and held."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import require_config_is_the_class, train

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import ElasticMemory

pytestmark = pytest.mark.filterwarnings("ignore")


class Model(LossMixin, L.LightningModule):
    """Dropout, so that evaluation mode is another function."""

    losses: Any = {"ce": {}, "elastic": {"weight": 1e4}}

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.drop, self.head = nn.Dropout(0.5), nn.Linear(3, 2)
        self.loss = build_objective(dict(self.losses))

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        return self.compute_loss(logits=self.head(self.drop(batch[0])), target=batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 1e-4)

    def train_dataloader(self) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(0)
        x = torch.randn(20, 3, generator=g)
        return DataLoader(TensorDataset(x, (x[:, 0] > 0).long()), 8)


def test_memory_is_the_fisher_of_single_samples() -> None:
    run = train(Model, [ElasticMemory(20, "true")])
    module, term = run.module, run.module.loss.terms["elastic"].loss
    assert module.training
    assert term.tasks == 1
    x, _ = module.train_dataloader().dataset.tensors
    p = module.head(x).softmax(1).detach()
    inputs = torch.cat([x, torch.ones(20, 1)], 1)
    expected = torch.zeros(2, 4)
    for i in range(20):
        for label in range(2):
            error = torch.eye(2)[label] - p[i]
            expected += p[i, label] * torch.outer(error, inputs[i]).square() / 20
    torch.testing.assert_close(term.memory["head.weight"][0], expected[:, :3])
    torch.testing.assert_close(term.memory["head.bias"][0], expected[:, 3])
    assert torch.equal(term.memory["head.weight"][1], module.head.weight.detach())
    logged = float(run.trainer.callback_metrics["elastic_memory/importance"])
    assert logged == pytest.approx(float(expected.sum()), rel=1e-5)
    # The next fit begins at the anchor, and the penalty is what keeps it there.
    again = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[ElasticMemory(8)],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    again.fit(module)
    assert term.tasks == 2


def test_it_changes_no_bit_of_the_training_and_refuses_what_it_cannot_serve() -> None:
    plain = train(Model).module
    held = train(Model, [ElasticMemory(5, "sampled")]).module
    assert torch.equal(plain.head.weight, held.head.weight)

    class Without(Model):
        losses: Any = {"ce": {}}

    with pytest.raises(ValueError, match=r"loss=elastic"):
        train(Without, [ElasticMemory()])
    with pytest.raises(ValueError, match="kind is"):
        ElasticMemory(kind="hybrid")  # type: ignore[arg-type]


class Unequal(Model):
    """Rank 0 has 12 rows, rank 1 the other 8; on one process all of them."""

    rank: int | None = None

    def train_dataloader(self) -> DataLoader[Any]:
        x, y = super().train_dataloader().dataset.tensors
        part = {None: slice(None), 0: slice(12), 1: slice(12, 20)}[self.rank]
        return DataLoader(TensorDataset(x[part], y[part]), 20 if self.rank is None else 4)


def remembered(rank: int | None) -> dict[str, Tensor]:
    """The memory after training that moves nothing, so that all measure the same model."""
    module = Unequal()
    module.rank = rank
    trainer = L.Trainer(
        max_epochs=1, accelerator="cpu", logger=False, callbacks=[ElasticMemory(20, "true")],
        enable_checkpointing=False, enable_progress_bar=False, enable_model_summary=False,
        use_distributed_sampler=False, limit_train_batches=2 if rank is not None else 1,
        **({} if rank is None else {"strategy": "ddp", "devices": 2}),
    )  # fmt: skip
    module.configure_optimizers = lambda: torch.optim.SGD(module.parameters(), 0.0)
    trainer.fit(module)
    memory = module.loss.terms["elastic"].loss.memory
    return {name: torch.stack(list(value)) for name, value in memory.items()}


def test_two_ranks_remember_what_one_does(tmp_path: Path) -> None:
    whole = remembered(None)
    for one in on_ranks(remembered, tmp_path):
        torch.testing.assert_close(one, whole)


def test_the_config_is_the_class() -> None:
    require_config_is_the_class("elastic_memory", ElasticMemory)
