# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy-based adaptive binning: counted by hand, and the monitor in training."""

from __future__ import annotations

import csv
import math
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from lightning.pytorch.loggers import CSVLogger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.monitors.information_plane import InformationPlaneMonitor
from lightning_losses.metrics.representation.ebab import (
    adaptive_edges,
    codes,
    joint_entropy,
    layer_information,
)


def bits(things: list[Any]) -> float:
    """Entropy of what is in a list, by counting."""
    return -sum(n / len(things) * math.log2(n / len(things)) for n in Counter(things).values())


def by_hand(x: list[list[float]], y: list[int], bins: int) -> tuple[float, float, int]:
    """I(T; X), I(T; Y) and the number of codes, value by value."""
    values = sorted({v for row in x for v in row})
    low, *rest = values
    edges = [low]
    if rest:
        edges += [rest[int(k * (len(rest) / bins))] for k in range(bins)] + [rest[-1]]
    code = [tuple(sum(edge <= v for edge in edges) - 1 for v in row) for row in x]
    given = sum(
        y.count(c) / len(y) * bits([t for t, label in zip(code, y, strict=True) if label == c])
        for c in set(y)
    )
    return bits(code), bits(code) - given, len(set(code))


@settings(max_examples=60, deadline=None)
@given(st.data(), st.integers(1, 12), st.integers(1, 4), st.integers(1, 40))
def test_the_definition(data: st.DataObject, n: int, width: int, bins: int) -> None:
    # Few different values, so that codes meet and bins outnumber values.
    value = st.sampled_from([-1.5, 0.0, 0.1, 0.25, 1.0, 7.0])
    x = data.draw(st.lists(st.lists(value, min_size=width, max_size=width), min_size=n, max_size=n))
    y = data.draw(st.lists(st.integers(0, 2), min_size=n, max_size=n))
    found = layer_information(torch.tensor(x, dtype=torch.float64), torch.tensor(y), bins)
    itx, ity, number = by_hand(x, y, bins)
    assert float(found.itx) == pytest.approx(itx, abs=1e-12)
    assert float(found.ity) == pytest.approx(ity, abs=1e-12)
    assert found.codes == number
    assert found.ity <= found.itx + 1e-12


def test_bins_hold_equal_counts_of_values() -> None:
    x = torch.randn(40, 30, generator=torch.Generator().manual_seed(0)).relu()
    edges = adaptive_edges(x, 10)
    assert len(edges) == 12
    assert edges[0] == 0
    counts = torch.bincount(codes(x, edges).flatten())
    positive = int((x > 0).sum())
    assert counts[0] == 1200 - positive
    assert ((counts[1:-1] - positive / 10).abs() <= 1).all()  # the largest value is by itself
    assert counts[-1] == 1
    assert torch.equal(adaptive_edges(torch.zeros(3, 2)), torch.zeros(1))
    assert len(adaptive_edges(torch.zeros(0, 2))) == 1
    assert float(joint_entropy(codes(torch.zeros(0, 2), torch.zeros(1)))) == 0
    tanh = adaptive_edges(x - 0.5, 10, low=-1.000001)
    assert tanh[0] == pytest.approx(-1.000001)


def test_a_layer_that_is_the_label_has_its_entropy() -> None:
    y = torch.arange(64) % 4
    found = layer_information(nn.functional.one_hot(y, 4).bfloat16(), y)
    assert [float(found.itx), float(found.ity), found.codes] == [2.0, 2.0, 4]
    constant = layer_information(torch.ones(64, 3), y)
    assert [float(constant.itx), float(constant.ity), constant.codes] == [0.0, 0.0, 1]
    noise = torch.rand(64, 9, generator=torch.Generator().manual_seed(0))
    degenerate = layer_information(noise, y)
    assert [float(degenerate.itx), float(degenerate.ity), degenerate.codes] == [6.0, 2.0, 64]


def test_arguments_are_checked() -> None:
    x, y = torch.zeros(4, 2), torch.zeros(4).long()
    for call, message in (
        (lambda: layer_information(x, y[:3]), "needs activations"),
        (lambda: layer_information(x / 0, y), "hold NaN or infinity"),
        (lambda: layer_information(x, y, bins=0), "at least 1"),
        (lambda: InformationPlaneMonitor(bins=0), "bins >= 1"),
        (lambda: InformationPlaneMonitor(max_rows=1), "max_rows 2 to 10000"),
        (lambda: InformationPlaneMonitor(layers="net.*"), "list of patterns"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ------------------------------------------------------------------ the monitor
class Net(LossMixin, L.LightningModule):
    """Batch norm, dropout, and rectifiers in place."""

    def __init__(self, width: int = 3) -> None:
        super().__init__()
        self.net = nn.Sequential(
            nn.Linear(6, width), nn.BatchNorm1d(width), nn.ReLU(inplace=True), nn.Dropout(0.2),
            nn.Linear(width, 2), nn.Tanh(),
        )  # fmt: skip
        self.head, self.loss = nn.Linear(2, 4), build_objective("ce")

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.compute_loss(logits=self.head(self.net(batch[0])), target=batch[1])

    def validation_step(self, batch: Any, i: int) -> None:
        self.training_step(batch, i)

    def test_step(self, batch: Any, i: int) -> None:
        self.training_step(batch, i)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def data(self) -> tuple[Tensor, Tensor]:
        g = torch.Generator().manual_seed(0)
        x, y = torch.randn(150, 6, generator=g), torch.randint(4, (150,), generator=g)
        y[::7] = -100
        return x, y

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*self.data()), batch_size=32)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()

    def test_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


def wanted(module: Any, layer: int, bins: int) -> tuple[float, float, int]:
    x, y = module.data()
    with torch.no_grad():
        t = module.eval().net[: layer + 1](x)[y >= 0]
    return by_hand(t.tolist(), y[y >= 0].tolist(), bins)


def hooks(module: nn.Module) -> int:
    return sum(len(part._forward_hooks) for part in module.modules())


def test_nothing_changes_and_the_numbers_are_right(tmp_path: Path) -> None:
    monitor = InformationPlaneMonitor(bins=4)
    logger = CSVLogger(tmp_path)
    run = train_twice(Net, [monitor], own="information_plane/", max_epochs=2, logger=logger)
    assert [row["layer"] for row in monitor.table] == ["net.2", "net.5"]
    for row, layer in zip(monitor.table, (2, 5), strict=True):
        itx, ity, _ = wanted(run.module, layer, 4)
        assert row["epoch"] == 1
        assert row["itx"] == pytest.approx(itx, abs=1e-4)
        assert row["ity"] == pytest.approx(ity, abs=1e-4)
        logged = run.trainer.callback_metrics[f"information_plane/net.{layer}/itx"]
        assert float(logged) == pytest.approx(itx, abs=1e-4)
    with Path(logger.log_dir, "information_plane.csv").open() as file:
        table = list(csv.DictReader(file))
    assert [(r["epoch"], r["layer"]) for r in table] == [
        (epoch, layer) for epoch in "01" for layer in ("net.2", "net.5")
    ]
    assert not run.module.loss._watched
    assert not hooks(run.module)


def test_layers_are_chosen_by_pattern_and_seen_before_what_writes_in_place() -> None:
    class Bare(Net):
        def __init__(self) -> None:
            super().__init__()
            self.net[1] = nn.Identity()

    monitor = InformationPlaneMonitor(["net.0", "nothing"], bins=4)
    run = train(Bare, [monitor])
    assert [row["layer"] for row in monitor.table] == ["net.0"]
    module: Any = run.module.eval()
    x, y = module.data()
    with torch.no_grad():
        t = module.net[0](x)[y >= 0]
    itx, ity, _ = by_hand(t.tolist(), y[y >= 0].tolist(), 4)
    assert float(t.min()) < 0  # which the rectifier in place would have cut
    assert monitor.table[0]["itx"] == pytest.approx(itx, abs=1e-4)
    assert monitor.table[0]["ity"] == pytest.approx(ity, abs=1e-4)


def test_after_a_resume_it_logs_the_same(tmp_path: Path) -> None:
    first = train(Net, [InformationPlaneMonitor(bins=4)])
    first.trainer.save_checkpoint(tmp_path / "a.ckpt")
    monitor = InformationPlaneMonitor(bins=4)
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, callbacks=[monitor],
    )  # fmt: skip
    trainer.validate(Net(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    for key, value in first.trainer.callback_metrics.items():
        if key.startswith("information_plane/"):
            assert trainer.callback_metrics[key] == value
    table = monitor.table
    trainer.test(Net(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert "information_plane/net.2/itx" in trainer.callback_metrics
    assert monitor.table is table


def told(module: Any, monitor: InformationPlaneMonitor) -> list[str]:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        train(module, [monitor], max_epochs=2)
    return [str(w.message) for w in caught if "InformationPlaneMonitor" in str(w.message)]


class Compiled(Net):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.compile(self.net, backend="eager")  # type: ignore[assignment]


class Silent(Net):
    def validation_step(self, batch: Any, i: int) -> None:
        self.net(batch[0])


class Pooled(Net):
    def validation_step(self, batch: Any, i: int) -> None:
        self.net[5](self.net(batch[0]).repeat(3, 1))
        super().validation_step(batch, i)
        self.net[5](torch.ones(7, 2))


@pytest.mark.parametrize(
    ("module", "options", "message"),
    [
        (lambda: Net(64), {"bins": 30}, "every row has a code of its own in net.2"),
        (Net, {"layers": ["encoder.*"]}, "no layer matches"),
        (Compiled, {}, "torch.compile cannot be seen"),
    ],
)
def test_it_says_once_what_it_cannot_do(module: Any, options: dict[str, Any], message: str) -> None:
    found = told(module, InformationPlaneMonitor(**options))
    assert len([text for text in found if message in text]) == 1


def test_it_leaves_out_what_are_not_rows() -> None:
    found = told(Silent, InformationPlaneMonitor())
    assert len([text for text in found if "calls compute_loss" in text]) == 1
    monitor = InformationPlaneMonitor()
    found = told(Pooled, monitor)
    assert len([text for text in found if "which are not 32 rows" in text]) == 1
    assert [row["layer"] for row in monitor.table] == ["net.2"]


def test_attention_modules_keep_their_fast_path() -> None:
    class Transformer(Net):
        def __init__(self) -> None:
            super().__init__()
            self.block = nn.TransformerEncoderLayer(6, 2, 8, activation=nn.GELU())

    chosen = InformationPlaneMonitor(["*"])._chosen(Transformer())
    assert not [name for name in chosen if name.startswith("block")]
    assert "net.2" in chosen


def test_positions_are_rows_and_pixels_are_units() -> None:
    class Tokens(Net):
        def validation_step(self, batch: Any, i: int) -> None:
            x = batch[0][:24].view(4, 6, 6)
            h = self.net[5](x)
            self.compute_loss(logits=self.head(h[..., :2]), target=batch[1][:24].view(4, 6) % 4)

        def val_dataloader(self) -> DataLoader[Any]:
            x, y = self.data()
            return DataLoader(TensorDataset(x[:120], y[:120].abs()), batch_size=24)

    monitor = InformationPlaneMonitor(["net.5"], bins=2)
    run = train(Tokens, [monitor])
    module: Any = run.module
    x, y = module.data()
    itx, ity, _ = by_hand(x[:120].tanh().tolist(), (y[:120].abs() % 4).tolist(), 2)
    assert monitor.table[0]["itx"] == pytest.approx(itx, abs=1e-6)
    assert monitor.table[0]["ity"] == pytest.approx(ity, abs=1e-6)


def test_wide_layers_are_thinned() -> None:
    from lightning_losses.callbacks.monitors.information_plane import UNITS, _rows_of, _some_units

    pixels = torch.arange(2 * 3 * 40 * 40).view(2, 3, 40, 40).float()
    thin = _some_units(pixels)
    assert thin.shape[1] <= UNITS
    assert torch.equal(thin, pixels.flatten(1)[:, ::5])
    sequence = _rows_of(_some_units(torch.rand(2, 50, 100)), 2)
    assert sequence is not None
    assert sequence.shape == (2, 1000)
