# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Diffusion spectral entropy: plain numpy, known values, the monitor in training."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import train, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.monitors.representation_entropy import RepresentationEntropyMonitor
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.metrics.representation.spectral_entropy import (
    diffusion_kernel,
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
    median_distance,
)


def median(x: np.ndarray) -> float:
    """The lower middle one of the distances between two different rows."""
    found = sorted(np.linalg.norm(a - b) for i, a in enumerate(x) for b in x[:i])
    return float(found[(len(found) - 1) // 2])


def dse(x: np.ndarray, bandwidth: float, t: float = 1.0) -> float:
    """By way of the diffusion matrix itself, which is not symmetric."""
    g = np.array([[np.exp(-np.sum((a - b) ** 2) / 2 / bandwidth**2) for b in x] for a in x])
    p = np.abs(np.linalg.eigvals(g / g.sum(1, keepdims=True))) ** t
    p = p / p.sum() + 1e-300
    return float(-(p * np.log2(p)).sum())


def rows(n: int, width: int = 3, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randn(n, width, generator=g, dtype=torch.float64)


# t of 2 and a half; a bandwidth that nearly merges all rows, one that nearly parts them.
@pytest.mark.parametrize(("bandwidth", "t"), [(None, 1.0), (0.2, 1.0), (10.0, 1.0), (1.0, 2.5)])
def test_the_definition(bandwidth: float | None, t: float) -> None:
    x = rows(23)
    wanted = dse(x.numpy(), median(x.numpy()) if bandwidth is None else bandwidth, t)
    assert float(diffusion_spectral_entropy(x, bandwidth, t)) == pytest.approx(wanted, abs=1e-9)
    assert float(median_distance(x)) == pytest.approx(median(x.numpy()))
    wide = rows(23, 6)[:, ::2]
    assert float(diffusion_spectral_entropy(wide)) == pytest.approx(
        dse(wide.numpy(), median(wide.numpy())), abs=1e-9
    )


def test_values_that_are_known() -> None:
    equal = torch.full((40, 7), 0.1234567)
    clusters = 1e3 * torch.eye(5, dtype=torch.float64).repeat(8, 1)
    for x, bandwidth, bits in (
        (equal, None, 0.0),
        (equal, 1.0, 0.0),
        (equal[:1], None, 0.0),
        (equal[:0], None, 0.0),
        (torch.cat([equal, rows(3, 7).float()]), None, 0.0),  # the median distance is 0
        (clusters, 1.0, np.log2(5)),
        (1e6 * rows(16), 1.0, 4.0),
    ):
        assert float(diffusion_spectral_entropy(x, bandwidth)) == pytest.approx(bits, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.integers(2, 30), st.integers(0, 2**31), st.floats(0.01, 100), st.floats(-1e4, 1e4))
def test_scale_place_and_order_do_not_matter(n: int, seed: int, scale: float, at: float) -> None:
    x = rows(n, 3, seed)
    one = float(diffusion_spectral_entropy(x))
    assert 0 <= one <= np.log2(n) + 1e-9
    moved = float(diffusion_spectral_entropy(scale * x.flip(0) + at))
    assert moved == pytest.approx(one, abs=1e-4)
    eigenvalues = torch.linalg.eigvalsh(diffusion_kernel(x, 3.0))
    assert eigenvalues.max() == pytest.approx(1)
    assert eigenvalues.min() > -1e-12


def test_half_precision_counts_as_what_it_holds() -> None:
    x = rows(30).bfloat16()
    assert torch.equal(diffusion_spectral_entropy(x), diffusion_spectral_entropy(x.double()))


def test_mutual_information_is_the_mean_of_what_classes_take_away() -> None:
    x, y = rows(24), torch.arange(24) % 3
    x[y == 1] += 4
    g, bandwidth, total = torch.Generator().manual_seed(0), median(x.numpy()), 0.0
    for label in range(3):
        for _ in range(2):
            chosen = torch.randperm(24, generator=g)[:8]
            total += 8 / 24 / 2 * dse(x[chosen].numpy(), bandwidth)
        total -= 8 / 24 * dse(x[y == label].numpy(), bandwidth)
    state = torch.get_rng_state()
    found = diffusion_spectral_mutual_information(x, y, repeats=2)
    assert torch.equal(torch.get_rng_state(), state)
    assert float(found) == pytest.approx(total, abs=1e-9)
    # Clusters that are points far apart: knowing the class takes away all there is to know.
    far = 1e3 * torch.eye(4, dtype=torch.float64).repeat(50, 1)
    whole = float(diffusion_spectral_mutual_information(far, torch.arange(200) % 4, 1.0))
    assert whole == pytest.approx(2, abs=0.1)  # subsets of 50 miss balance by a little
    shuffled = torch.arange(200) % 7
    assert abs(float(diffusion_spectral_mutual_information(far, shuffled, 1.0))) < 0.1
    assert float(diffusion_spectral_mutual_information(x, torch.arange(24))) == 0


def test_arguments_are_checked() -> None:
    x, y = rows(4), torch.zeros(4).long()
    for call, message in (
        (lambda: diffusion_spectral_entropy(x, 0.0), "must be positive"),
        (lambda: diffusion_spectral_entropy(x, t=0), "must be positive"),
        (lambda: diffusion_spectral_entropy(x[0]), "finite and"),
        (lambda: diffusion_spectral_entropy(x / 0), "finite and"),
        (lambda: diffusion_spectral_mutual_information(x, y[:2]), "needs target"),
        (lambda: diffusion_spectral_mutual_information(x, y, repeats=0), "at least 1"),
        (lambda: RepresentationEntropyMonitor(bandwidth=-1.0), "must be positive"),
        (lambda: RepresentationEntropyMonitor(max_rows=1001), "2 to 1000"),
    ):
        with pytest.raises(ValueError, match=message):
            call()


# ------------------------------------------------------------------ the monitor
class Net(LossMixin, L.LightningModule):
    """Batch norm and dropout; features as the option says."""

    def __init__(self, route: str = "features", classes: int = 4) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Dropout(0.3))
        # ce wants two columns, also where all rows are of one class.
        self.head, self.route, self.classes = nn.Linear(8, max(classes, 2)), route, classes
        self.loss = build_objective("ce")

    def training_step(self, batch: Any, _: int) -> Tensor:
        h = self.body(batch[0])
        if self.route == "none":
            return self.compute_loss(logits=self.head(h), target=batch[1])
        if self.route == "soft":
            soft = nn.functional.one_hot(batch[1].clamp(min=0), self.classes).float()
            return self.compute_loss(logits=self.head(h), target=soft, features=h)
        return self.compute_loss(logits=self.head(h), target=batch[1], features=h)

    def validation_step(self, batch: Any, i: int) -> None:
        self.training_step(batch, i)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def data(self) -> tuple[Tensor, Tensor]:
        x = rows(150, 6).float()
        y = torch.arange(150) % self.classes
        y[::7] = -100
        return x, y

    def train_dataloader(self) -> DataLoader[Any]:
        return DataLoader(TensorDataset(*self.data()), batch_size=32)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.train_dataloader()


def test_nothing_changes_and_the_numbers_are_right() -> None:
    monitor = RepresentationEntropyMonitor(max_rows=50)
    run = train_twice(Net, [monitor], own="representation_entropy/", max_epochs=2)
    module: Any = run.module.eval()
    x, y = module.data()
    with torch.no_grad():
        h = module.body(x[y >= 0]).double()
    chosen = slice(None, None, 4)  # 128 rows that count: every 4th is what fits into 50
    found = run.trainer.callback_metrics
    h, y = h[chosen], y[y >= 0][chosen]
    bandwidth = median(h.numpy())
    assert float(found["representation_entropy/dse"]) == pytest.approx(
        dse(h.numpy(), bandwidth), rel=1e-4
    )
    assert float(found["representation_entropy/dsmi"]) == pytest.approx(
        float(diffusion_spectral_mutual_information(h, y, bandwidth)), abs=1e-4
    )
    assert not run.module.loss._watched


def test_after_a_resume_it_logs_the_same(tmp_path: Path) -> None:
    first = train(Net, [RepresentationEntropyMonitor()])
    first.trainer.save_checkpoint(tmp_path / "a.ckpt")
    trainer = L.Trainer(
        accelerator="cpu", logger=False, enable_progress_bar=False, enable_checkpointing=False,
        enable_model_summary=False, callbacks=[RepresentationEntropyMonitor()],
    )  # fmt: skip
    trainer.validate(Net(), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    for key in ("representation_entropy/dse", "representation_entropy/dsmi"):
        assert trainer.callback_metrics[key] == first.trainer.callback_metrics[key]


@pytest.mark.parametrize(
    ("route", "classes", "message", "keys"),
    [
        ("none", 4, "passes no features", []),
        ("soft", 4, "only dse is logged", ["dse"]),
        ("features", 100, "two rows each", ["dse"]),
        ("features", 1, "two rows each", ["dse"]),
    ],
)
def test_it_says_once_what_is_missing(
    route: str, classes: int, message: str, keys: list[str]
) -> None:
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = train(lambda: Net(route, classes), [RepresentationEntropyMonitor()], max_epochs=2)
    told = [str(w.message) for w in caught if message in str(w.message)]
    assert len(told) == 1
    found = {k for k in run.trainer.callback_metrics if k.startswith("representation_entropy/")}
    assert found == {f"representation_entropy/{key}" for key in keys}


def test_rows_are_every_kth() -> None:
    kept = StrideSample(50)
    kept.add(torch.arange(128))
    assert torch.cat([part[0] for part in kept.parts()]).tolist() == list(range(0, 128, 4))
