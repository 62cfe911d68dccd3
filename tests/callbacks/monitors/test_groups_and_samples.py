# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`LossByMonitor` and `SampleValueMonitor` in trainings, against their rows; on two ranks."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any, cast

import lightning as L
import pytest
import torch
import torch.nn.functional as F
from lightning.pytorch.loggers import CSVLogger
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import require_config_is_the_class, train

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks import LossByMonitor, SampleValueMonitor
from lightning_losses.callbacks.monitors import sample_value

pytestmark = pytest.mark.filterwarnings("ignore")
ROWS, BATCH = 30, 7


class Model(LossMixin, L.LightningModule):
    """Passes a group and the index of each sample."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.head = nn.Linear(4, 3)
        self.loss = build_objective("ce")

    def training_step(self, batch: list[Tensor], _: int) -> Tensor:
        x, y, domain, index = batch
        named = {"group_id": domain, "sample_index": index, "features": x}
        return self.compute_loss(logits=self.head(x), target=y, **named)

    def validation_step(self, batch: list[Tensor], index: int) -> Tensor:
        return self.training_step(batch, index)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*rows()), BATCH)

    val_dataloader = train_dataloader


def rows() -> tuple[Tensor, ...]:
    g = torch.Generator().manual_seed(0)
    x, y = torch.randn(ROWS, 4, generator=g), torch.randint(3, (ROWS,), generator=g)
    y[5] = -100  # does not count
    return x, y, torch.arange(ROWS) % 3 * 7, torch.arange(ROWS)


def test_loss_by_group_and_early_stopping_on_the_worst(tmp_path: Path) -> None:
    monitor = LossByMonitor(min_count=5)
    stop = L.pytorch.callbacks.EarlyStopping("loss_by/val/worst_loss", patience=9)
    run = train(Model, [monitor, stop], logger=CSVLogger(tmp_path))
    x, y, domain, _ = rows()
    z = run.module.head(x).detach()
    each = F.cross_entropy(z, y, reduction="none")
    logged = run.trainer.callback_metrics
    losses = {k: float(each[(domain == k) & (y >= 0)].mean()) for k in (0, 7, 14)}
    for k, loss in losses.items():
        assert float(logged[f"loss_by/val/loss/{k}"]) == pytest.approx(loss, rel=1e-5)
    worst, mean = max(losses.values()), float(each[y >= 0].mean())
    assert float(logged["loss_by/val/worst_loss"]) == pytest.approx(worst, rel=1e-5)
    assert float(logged["loss_by/val/gap"]) == pytest.approx(worst - mean, rel=1e-4)
    assert 0 < float(logged["loss_by/val/js_distance"]) < 1
    with (Path(run.trainer.log_dir) / "loss_by.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [row["group"] for row in table] == ["0", "7", "14"]
    assert [int(row["count"]) for row in table] == [10, 10, 9]


def test_loss_by_bins_and_what_is_missing() -> None:
    class Real(Model):
        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            x, y, _, _ = batch
            return self.compute_loss(logits=self.head(x), target=y, length=x[:, 0])

    run = train(Real, [LossByMonitor("length", bins=3, min_count=1)])
    table = run.trainer.callbacks[0].table  # type: ignore[attr-defined]
    assert [row["count"] for row in table] == [10, 9, 10]
    assert table[0]["upper"] == table[1]["lower"]
    with pytest.warns(UserWarning, match="write bins=10"):
        train(Real, [LossByMonitor("length")])
    with pytest.warns(UserWarning, match="needs position"):
        train(Model, [LossByMonitor("position")])


def test_samples_by_hand_and_suspects(tmp_path: Path) -> None:
    plain = rows()[0][:, :3].sort(1).values
    clear = torch.where(torch.arange(ROWS) == 5, -1.0, plain[:, 2] - plain[:, 1])
    wrong = clear.argsort(descending=True)[:3]

    class Noisy(Model):
        def configure_optimizers(self) -> torch.optim.Optimizer:
            return torch.optim.SGD(self.parameters(), 0.5)

        def val_dataloader(self) -> DataLoader[Any]:
            x, _, *others = rows()  # labels as they should be
            return DataLoader(TensorDataset(x, x[:, :3].argmax(1), *others), BATCH)

        def train_dataloader(self) -> DataLoader[Any]:
            x, y, *others = rows()
            y = torch.where(y >= 0, (x[:, :3] * 3).argmax(1), y)  # learnable
            y[wrong] = x[wrong, :3].argmin(1)  # but for the three that are plainest
            return DataLoader(TensorDataset(x, y, *others), BATCH, shuffle=True)

    monitor = SampleValueMonitor(most=3, influence=True)
    run = train(Noisy, [monitor], max_epochs=12, logger=CSVLogger(tmp_path))
    assert not run.module.loss._watched  # nothing is asked of the objective any more
    table = monitor.table
    assert table["sample_index"].tolist() == [i for i in range(ROWS) if i != 5]
    assert set(table["presentations"].tolist()) == {12}
    suspects = {int(table["sample_index"][place]) for place in monitor.suspects()}
    assert suspects == set(wrong.tolist())
    assert table["influence"][monitor.suspects()].mean() < table["influence"].mean()
    with (Path(run.trainer.log_dir) / "sample_value.csv").open() as file:
        assert [row["rank"] for row in csv.DictReader(file)] == ["1", "2", "3"]
    assert float(run.trainer.callback_metrics["sample_value/never_learned"]) == pytest.approx(
        float((table["learned"] == 0).double().mean())
    )

    class Without(Model):
        def training_step(self, batch: list[Tensor], _: int) -> Tensor:
            return self.compute_loss(logits=self.head(batch[0]), target=batch[1])

    with pytest.warns(UserWarning, match="have the data set return i"):
        train(Without, [SampleValueMonitor()])


def test_steps_are_put_together_whatever_each_of_them_had(monkeypatch: Any) -> None:
    """Of three steps two are put together, one waits; what is read in between copies the batch."""
    monkeypatch.setattr(sample_value, "TOGETHER", 2)
    g = torch.Generator().manual_seed(0)
    z, x = torch.randn(3, 5, 4, generator=g), torch.randn(3, 5, 2, generator=g)
    y = torch.tensor([[0, 1, -100, 2, 3]] * 3)
    index = torch.arange(15).view(3, 5)
    monitor, module = SampleValueMonitor(), nn.Module()
    module.loss = build_objective("ce")
    some: dict[str, Tensor] = {"features": x[0]}  # the second step passes none
    for step in range(3):
        monitor.start_measuring(cast(Any, module))
        labels, own = y[step].clone(), index[step].clone()
        record = module.loss(z[step], labels, sample_index=own, **(some if step == 0 else {}))
        batch = monitor._read(record, 0.1)
        assert batch is not None
        monitor._batches.append(batch)
        if len(monitor._batches) >= sample_value.TOGETHER:
            monitor._settle()
        for used in (labels, own):
            used.zero_()  # as a loader that uses its buffers again
    assert (len(monitor._batches), len(monitor._waiting)) == (1, 1)
    again = SampleValueMonitor()
    again.load_state_dict(monitor.state_dict())
    rows = torch.cat(again._waiting.tensors())
    assert len(rows) == 15
    for place, row in enumerate(rows.tolist()):
        step, at = divmod(place, 5)
        if at == 2:
            assert row[0] == -1
            continue
        p, label = z[step, at].double().softmax(0), int(y[step, at])
        error = (p - nn.functional.one_hot(torch.tensor(label), 4)).norm()
        others = torch.cat([z[step, at, :label], z[step, at, label + 1 :]])
        expected = [
            place,
            p.argmax() == label,
            label,
            p.argmax(),
            error,
            z[step, at, label] - others.max(),
        ]
        assert row[:6] == pytest.approx([float(value) for value in expected], abs=1e-5)
        if step == 0:
            assert row[6] == pytest.approx(
                float(error * (x[0, at].square().sum() + 1).sqrt()), abs=1e-5
            )
        else:
            assert math.isnan(row[6])
        assert math.isnan(row[7])


def test_the_configs_are_the_classes() -> None:
    require_config_is_the_class("loss_by", LossByMonitor)
    require_config_is_the_class("sample_value", SampleValueMonitor)


# ------------------------------------------------------------------ two ranks
class Ranks(Model):
    """Both ranks have their own half of the rows, in whole batches or not."""

    rank = 0

    def train_dataloader(self) -> DataLoader[Any]:
        mine = [t[:18] if self.rank == 0 else t[18:] for t in rows()]
        return DataLoader(TensorDataset(*mine), 9 if self.rank == 0 else 6)

    val_dataloader = train_dataloader


def worker(rank: int) -> dict[str, Any]:
    Ranks.rank = rank
    callbacks = [LossByMonitor(min_count=1), SampleValueMonitor()]
    options = {"devices": 2, "strategy": "ddp", "use_distributed_sampler": False}
    run = train(Ranks, callbacks, **options)
    groups = [[r["group"], r["count"], r["loss"]] for r in callbacks[0].table]  # type: ignore[attr-defined]
    metrics = {k: float(v) for k, v in run.trainer.callback_metrics.items() if "_by/" in k}
    samples = callbacks[1].table["presentations"].tolist()  # type: ignore[attr-defined]
    return {"groups": groups, "metrics": metrics, "samples": samples}


def test_two_ranks_have_all_groups_and_samples(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    assert zero == one
    assert [row[:2] for row in zero["groups"]] == [["0", 10], ["7", 10], ["14", 9]]
    assert zero["samples"] == [1] * (ROWS - 1)
