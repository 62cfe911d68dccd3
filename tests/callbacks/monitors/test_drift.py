# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Drift of confidences: PSI by hand, a frozen reference, announcements; two ranks elsewhere."""

from __future__ import annotations

import math
import warnings
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

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.monitors.drift import DriftMonitor
from lightning_losses.metrics.calibration.histogram import ConfidenceHistogram
from lightning_losses.metrics.calibration.psi import pool, psi


class Scaled(LossMixin, L.LightningModule):
    """Logits are the batch times a factor: confidence goes where the test sends it."""

    def __init__(self, route: str = "logits") -> None:
        super().__init__()
        self.factor, self.route = nn.Parameter(torch.ones(())), route
        self.loss = build_objective("ce")

    def validation_step(self, batch: Any, _: int) -> None:
        z, y = batch[0] * self.factor, batch[1]
        if self.route == "logits":
            self.compute_loss(logits=z, target=y)
        else:
            self.compute_loss(hidden=z, head_weight=torch.eye(4), target=y)

    def test_step(self, batch: Any, i: int) -> None:
        self.validation_step(batch, i)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.compute_loss(logits=batch[0] * self.factor, target=batch[1])

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-9)


def loader(n: int = 400) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(0)
    z, y = torch.randn(n, 4, generator=g), torch.randint(4, (n,), generator=g)
    y[::5] = -100
    return DataLoader(TensorDataset(z, y), batch_size=64)


def trainer(*callbacks: L.Callback, **kwargs: Any) -> L.Trainer:
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    quiet |= {"enable_checkpointing": False}
    return L.Trainer(accelerator="cpu", devices=1, callbacks=list(callbacks), **(quiet | kwargs))


def by_hand(factor: float) -> float:
    """PSI over tenths of the reference, whose edges are order statistics here, not fine bins."""
    z, y = loader().dataset.tensors
    before = z[y >= 0].softmax(1).amax(1)
    now = (z[y >= 0] * factor).softmax(1).amax(1)
    edges = before.sort().values[[round(k * len(before) / 10) for k in range(1, 10)]]
    total = 0.0
    for b in range(10):
        p, q = (
            max(float((torch.bucketize(c, edges, right=True) == b).sum()), 0.5) / len(c)
            for c in (before, now)
        )
        total += (p - q) * math.log(p / q)
    return total


@pytest.mark.parametrize("route", ["logits", "hidden"])
@pytest.mark.parametrize("factor", [1.0, 1.1, 2.0])
def test_psi_against_the_first_epoch(route: str, factor: float) -> None:
    module, monitor = Scaled(route), DriftMonitor()
    run = trainer(monitor)
    run.validate(module, loader(), verbose=False)
    assert "drift/psi" not in run.callback_metrics
    assert int(monitor.reference.sum()) == 320
    with torch.no_grad():
        module.factor.fill_(factor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run.validate(module, loader(), verbose=False)
        found = float(run.callback_metrics["drift/psi"])
        error, chance = (
            float(run.callback_metrics[f"drift/psi_{name}"])
            for name in ("standard_error", "chance")
        )
        assert chance == pytest.approx(9 * 2 / 320)  # ten cells, 320 rows on either side
        assert (error > 0) == (factor != 1.0)
        run.test(module, loader(), verbose=False)
    # Tenths of fine bins part from those of rows by a row or so of 32 in each.
    assert found == pytest.approx(by_hand(factor), rel=0.15, abs=0.01)
    assert float(run.callback_metrics["drift/psi"]) == pytest.approx(found)
    told = [w for w in caught if "PSI of the confidences" in str(w.message)]
    assert len(told) == (1 if factor == 2.0 else 0)  # once, though twice above
    assert monitor.told == (factor == 2.0)
    assert not module.loss._watched


def test_it_is_announced_again_after_it_was_over() -> None:
    module, monitor = Scaled(), DriftMonitor(threshold=0.3)
    run = trainer(monitor)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for factor in (1.0, 3.0, 3.0, 1.0, 3.0):
            with torch.no_grad():
                module.factor.fill_(factor)
            run.validate(module, loader(), verbose=False)
    assert len([w for w in caught if "PSI of the confidences" in str(w.message)]) == 2


class Grow(L.Callback):
    """A model that becomes surer with each epoch, as models do."""

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        with torch.no_grad():
            pl_module.factor.mul_(1.5)


def test_a_model_that_learns_does_not_drift(tmp_path: Path) -> None:
    monitor, module = DriftMonitor(), Scaled()
    run = trainer(monitor, Grow(), max_epochs=4, logger=CSVLogger(tmp_path))
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*PSI")
        run.fit(module, loader(), loader())
        assert "drift/psi" not in run.callback_metrics
        # Of the last validation, before the epoch's end grew it once more.
        confidence = ConfidenceHistogram()
        z, y = loader().dataset.tensors
        confidence.update((z * 1.5**3)[y >= 0].softmax(1).amax(1))
        assert torch.equal(monitor.reference, confidence.compute())
        with torch.no_grad():
            module.factor.div_(1.5)
        run.validate(module, loader(), verbose=False)
        run.test(module, loader(), verbose=False)
    assert float(run.callback_metrics["drift/psi"]) == 0
    with torch.no_grad():
        module.factor.mul_(3)
    with pytest.warns(UserWarning, match="DriftMonitor: PSI of the confidences of this test"):
        run.test(module, loader(), verbose=False)
    # The file is the reference of a process that has no checkpoint; it is not replaced.
    (file,) = tmp_path.rglob("drift_reference.json")
    other = DriftMonitor(reference=file)
    assert torch.equal(other.reference, monitor.reference)
    run = trainer(other)
    run.validate(Scaled(), loader(), verbose=False)
    assert float(run.callback_metrics["drift/psi"]) > 0.1
    assert torch.equal(other.reference, monitor.reference)


def test_a_model_trained_on_after_its_last_validation_has_no_reference_yet(tmp_path: Path) -> None:
    monitor, module = DriftMonitor(), Scaled()
    # 7 batches an epoch: validated after 7, and trained on for 3.
    run = trainer(monitor, max_steps=10, logger=CSVLogger(tmp_path))
    run.fit(module, loader(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    old = monitor.reference.clone()
    with torch.no_grad():
        module.factor.fill_(3)
    with pytest.warns(UserWarning, match=r"no reference. Write trainer.validate\("):
        run.test(module, loader(), verbose=False)
    assert "drift/psi" not in run.callback_metrics
    with warnings.catch_warnings():
        warnings.filterwarnings("error", message=".*PSI")
        run.validate(module, loader(), verbose=False)
        assert not torch.equal(monitor.reference, old)
        run.test(module, loader(), verbose=False)
    assert float(run.callback_metrics["drift/psi"]) == 0
    (file,) = tmp_path.rglob("drift_reference.json")
    assert torch.equal(DriftMonitor(reference=file).reference, monitor.reference)
    # A checkpoint knows it too.
    again = DriftMonitor()
    run = trainer(again)
    run.validate(Scaled(), loader(100), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert int(again.reference.sum()) == 80  # of these rows


def test_training_is_compared_with_a_file_and_stops(tmp_path: Path) -> None:
    first = trainer(DriftMonitor(), max_epochs=1, logger=CSVLogger(tmp_path))
    first.fit(Scaled(), loader(), loader())
    (file,) = tmp_path.rglob("drift_reference.json")
    run = trainer(DriftMonitor(action="stop", reference=file), Grow(), max_epochs=9)
    with pytest.warns(UserWarning, match="PSI of the confidences"):
        run.fit(Scaled(), loader(), loader())
    assert run.current_epoch == 2
    for wrong in ("", "{}", "[1, 2]", file.read_text().replace(": [", ": [-1, ")):
        (tmp_path / "wrong.json").write_text(wrong)
        with pytest.raises(ValueError, match=r"no reference.*drift_reference\.json"):
            DriftMonitor(reference=tmp_path / "wrong.json")


def test_the_reference_is_in_the_checkpoint(tmp_path: Path) -> None:
    first = DriftMonitor()
    run = trainer(first, max_epochs=1)
    run.fit(Scaled(), loader(), loader())
    run.save_checkpoint(tmp_path / "a.ckpt")
    second, module = DriftMonitor(), Scaled()
    run = trainer(second)
    run.validate(module, loader(100), ckpt_path=tmp_path / "a.ckpt", verbose=False)
    assert torch.equal(second.reference, first.reference)  # not that of these 100 rows
    assert "drift/psi" in run.callback_metrics


def test_without_rows_or_classes_there_is_nothing() -> None:
    class Real(Scaled):
        def validation_step(self, batch: Any, _: int) -> None:
            self.loss = build_objective(
                {"mse": {"_target_": "torch.nn.MSELoss", "reduction": "none",
                         "inputs": {"input": "logits"}}}
            )  # fmt: skip
            self.compute_loss(logits=batch[0][:, 0], target=batch[1].float())

    monitor = DriftMonitor()
    z, y = loader().dataset.tensors
    ignored = DataLoader(TensorDataset(z, torch.full_like(y, -100)), batch_size=64)
    trainer(monitor).validate(Scaled(), ignored, verbose=False)
    assert monitor.reference is None
    for option in ({"threshold": 0.0}, {"action": "shout"}):
        with pytest.raises(ValueError, match="|".join(option)):
            DriftMonitor(**option)  # type: ignore[arg-type]
    with pytest.warns(UserWarning, match="DriftMonitor: this step has no class logits.*Pass"):
        trainer(monitor).validate(Real(), loader(), verbose=False)


# ------------------------------------------------------------------ the functions
counts = st.lists(st.integers(0, 50), min_size=2, max_size=12)


@settings(max_examples=80, deadline=None)
@given(counts, st.data())
def test_psi_is_a_distance(n: list[int], data: st.DataObject) -> None:
    m = data.draw(st.lists(st.integers(0, 50), min_size=len(n), max_size=len(n)))
    a, b = torch.tensor(n), torch.tensor(m)
    there, back = psi(a, b), psi(b, a)
    if not sum(n) or not sum(m):
        assert there.psi.isnan()
        return
    assert there.psi >= 0
    assert there.psi.isfinite()
    assert there.psi == pytest.approx(float(back.psi))
    assert there.standard_error == pytest.approx(float(back.standard_error))
    assert psi(a, 3 * a).psi == pytest.approx(0, abs=0.2 if 0 in n else 1e-12)


def test_bias_is_the_mean_of_nothing_moved() -> None:
    share = torch.tensor([0.1, 0.2, 0.3, 0.4])
    g = torch.Generator().manual_seed(0)
    draw = torch.multinomial(share.expand(2000, 4), 1500, replacement=True, generator=g)
    histograms = torch.nn.functional.one_hot(draw, 4).sum(1).view(1000, 2, 4)
    found = [float(psi(n, m).psi) for n, m in histograms]
    expected = float(psi(*histograms[0]).bias)
    assert sum(found) / len(found) == pytest.approx(expected, rel=0.1)


def test_pool_makes_cells_of_equal_mass() -> None:
    g = torch.Generator().manual_seed(0)
    histogram = ConfidenceHistogram()
    histogram.update(torch.rand(5000, generator=g) ** 0.1)
    cells = torch.zeros(10, dtype=torch.int64).index_add(
        0, pool(histogram.compute()), histogram.compute()
    )
    assert cells.sum() == 5000
    assert (cells - 500).abs().max() < 60
    assert (pool(histogram.compute()).diff() >= 0).all()


def test_histogram_counts_each_valid_confidence_once() -> None:
    histogram = ConfidenceHistogram(8)
    c = torch.tensor([0.0, 1.0, 0.5, torch.nan, 0.7], dtype=torch.bfloat16)
    histogram.update(c, torch.tensor([True, True, True, True, False]))
    assert histogram.compute().sum() == 3
    assert histogram.compute()[0] == histogram.compute()[-1] == 1
    with pytest.raises(ValueError, match="bins=0"):
        ConfidenceHistogram(0)
    with pytest.raises(ValueError, match="same cells"):
        psi(torch.ones(3), torch.ones(4))
