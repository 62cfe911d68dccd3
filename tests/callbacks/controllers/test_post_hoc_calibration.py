# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Post-hoc calibration: fitted on validation, cross-fitted numbers, checkpoints, predictions."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from ranks import on_ranks
from torch import Tensor, nn
from torch.utils.data import DataLoader, Subset, TensorDataset
from training import require_config_is_the_class, train_twice

from lightning_losses import LossMixin, build_objective
from lightning_losses.calibrators import TemperatureScaling
from lightning_losses.callbacks import CalibrationMonitor
from lightning_losses.callbacks.controllers.post_hoc_calibration import METHODS, PostHocCalibration
from lightning_losses.callbacks.monitors.drift import DriftMonitor
from lightning_losses.callbacks.monitors.ood import OODMonitor
from lightning_losses.callbacks.reading.logits import RECORD_LOGITS, record_logits
from lightning_losses.callbacks.reading.stride_sample import StrideSample

CLASSES, IGNORED = 4, -100


class Classifier(LossMixin, L.LightningModule):
    """Linear with dropout, so that a disturbed random state would show; remembers its logits."""

    def __init__(self, route: str = "logits", returns: str = "tensor") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.drop, self.head = nn.Dropout(0.2), nn.Linear(5, CLASSES)
        self.loss = build_objective("ce")
        self.route, self.returns = route, returns
        self._seen: list[tuple[Tensor, Tensor]] = []

    def step(self, batch: Any) -> Tensor:
        x, y = batch
        z = 6 * self.head(self.drop(x))  # too sure
        if self.route == "hidden":
            return self.compute_loss(hidden=x, head_weight=self.head.weight, target=y)
        if not self.training and not self.trainer.sanity_checking:
            self._seen.append((z[y != IGNORED].detach().clone(), y[y != IGNORED]))
        return self.compute_loss(logits=z, target=y, features=x)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.step(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.step(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch)

    def predict_step(self, batch: Any, _: int) -> Any:
        z = 6 * self.head(batch[0])
        return {"tensor": z, "dict": {"logits": z}, "list": [z]}[self.returns]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=1e-3)


def data(n: int = 200, seed: int = 0) -> TensorDataset:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 5, generator=g)
    true = x @ torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(9))
    y = torch.multinomial(true.softmax(1), 1, generator=g)[:, 0]
    y[torch.rand(n, generator=g) < 0.1] = IGNORED
    return TensorDataset(x, y)


def loader(n: int = 200, seed: int = 0) -> DataLoader[Any]:
    return DataLoader(data(n, seed), batch_size=32)


def trainer(*callbacks: L.Callback, **kwargs: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
    }
    return L.Trainer(callbacks=list(callbacks), **(quiet | kwargs))


def logged(run: L.Trainer, start: str = "post_hoc/") -> dict[str, float]:
    return {k: float(v) for k, v in run.callback_metrics.items() if k.startswith(start)}


# ------------------------------------------------------------------ numbers
def test_temperature_of_the_last_validation() -> None:
    module, callback = Classifier(), PostHocCalibration()
    run = trainer(callback)
    run.fit(module, loader(), loader(300, seed=1))
    z, y = (torch.cat(part) for part in zip(*module._seen[-10:], strict=True))
    found = logged(run)
    assert set(found) == {
        "post_hoc/temperature",
        *(f"post_hoc/val/{k}_{w}" for k in ("ece", "nll") for w in ("before", "after")),
    }
    best = TemperatureScaling().fit(z, y)
    assert found["post_hoc/temperature"] == pytest.approx(float(best.temperature), rel=1e-5)
    assert callback.calibrator.temperature == pytest.approx(float(best.temperature), rel=1e-6)
    before = nn.functional.cross_entropy(z.double(), y)
    assert found["post_hoc/val/nll_before"] == pytest.approx(float(before), rel=1e-5)
    # After: each half by the temperature of the other half, by hand.
    total = 0.0
    for half in (0, 1):
        t = TemperatureScaling().fit(z[1 - half :: 2], y[1 - half :: 2]).temperature
        total += float(nn.functional.cross_entropy(z[half::2] / t, y[half::2], reduction="sum"))
    assert found["post_hoc/val/nll_after"] == pytest.approx(total / len(y), rel=1e-5)
    assert found["post_hoc/val/nll_after"] < found["post_hoc/val/nll_before"] - 0.05
    assert found["post_hoc/val/ece_after"] < found["post_hoc/val/ece_before"] - 0.05
    torch.testing.assert_close(callback.calibrate(z), (z / float(best.temperature)).softmax(1))
    assert not module.loss._watched
    assert callback._rows.parts() == []


@pytest.mark.parametrize("method", METHODS)
def test_every_method_improves_a_model_that_is_too_sure(method: str) -> None:
    module, callback = Classifier(), PostHocCalibration(method)
    run = trainer(callback)
    run.validate(module, loader(600), verbose=False)
    found = logged(run)
    assert found["post_hoc/val/nll_after"] < found["post_hoc/val/nll_before"]
    assert ("post_hoc/temperature" in found) == (method == "temperature")
    run.test(module, loader(600, seed=5), verbose=False)
    found = logged(run)
    assert found["post_hoc/test/nll_after"] < found["post_hoc/test/nll_before"]
    # Flexible on 540 rows, cross-fitted numbers are not far from those of new rows.
    assert found["post_hoc/test/ece_after"] < found["post_hoc/test/ece_before"]


@pytest.mark.parametrize(("rows", "most"), [(7, 7), (7, 6), (1000, 10), (1, 1), (64, 32)])
def test_rows_are_kept_evenly(rows: int, most: int) -> None:
    for size in (1, 3, 50):
        kept = StrideSample(most)
        for start in range(0, rows, size):
            kept.add(torch.arange(start, min(start + size, rows)))
        found = torch.cat([part[0] for part in kept.parts()])
        assert found.tolist() == list(range(0, rows, kept.stride))
        assert most / 2 <= len(found) <= most or kept.stride == 1


def test_plain_logits_are_those_of_the_statistics() -> None:
    g = torch.Generator().manual_seed(0)
    z, y = 6 * torch.randn(9, 4, generator=g), torch.randint(4, (9,), generator=g)
    objective = build_objective("ce")
    objective.watch("me", "confidence", *RECORD_LOGITS)
    options = {"softcap": 5.0, "logit_scale": 0.7, "temperature": torch.rand(9, generator=g) + 0.5}
    for named in ({}, options):
        record = objective(z, y, **named)
        found = record_logits(record)
        assert found is not None
        torch.testing.assert_close(found.softmax(1).amax(1), record.stats.confidence)
    assert record_logits(objective(hidden=z, head_weight=torch.eye(4), target=y)) is None


def test_max_rows_bounds_what_is_fitted() -> None:
    module, callback = Classifier(), PostHocCalibration(max_rows=50)
    trainer(callback).validate(module, loader(300), verbose=False)
    z, y = (torch.cat(part) for part in zip(*module._seen, strict=True))
    every = next(k for k in (1, 2, 4, 8, 16) if len(range(0, len(y), k)) <= 50)
    best = TemperatureScaling().fit(z[::every], y[::every]).temperature
    assert callback.calibrator.temperature == pytest.approx(float(best), rel=1e-6)


# ------------------------------------------------------------------ predictions, checkpoints
@pytest.mark.parametrize("returns", ["tensor", "dict"])
def test_predictions_are_calibrated_on_request(returns: str, tmp_path: Path) -> None:
    fitted, module = PostHocCalibration(), Classifier()
    run = trainer(fitted, max_epochs=1)
    run.fit(module, loader(), loader(300, seed=1))
    run.save_checkpoint(tmp_path / "a.ckpt")
    x = loader(40, seed=3)
    plain = trainer().predict(Classifier(), x, ckpt_path=tmp_path / "a.ckpt")
    # A new process: nothing but the checkpoint.
    callback = PostHocCalibration(apply=True)
    out = trainer(callback).predict(Classifier(returns=returns), x, ckpt_path=tmp_path / "a.ckpt")
    assert callback.calibrator.temperature == fitted.calibrator.temperature
    for logits, found in zip(plain, out, strict=True):
        p = found["probabilities"] if returns == "dict" else found
        torch.testing.assert_close(p, fitted.calibrate(logits))
        if returns == "dict":
            torch.testing.assert_close(found["logits"], logits)
    off = PostHocCalibration()
    out = trainer(off).predict(Classifier(), x, ckpt_path=tmp_path / "a.ckpt")
    assert torch.equal(torch.cat(out), torch.cat(plain))


def test_predictions_that_cannot_be_calibrated_are_left_alone() -> None:
    with pytest.warns(UserWarning, match="not fitted"):
        out = trainer(PostHocCalibration(apply=True)).predict(Classifier(), loader(40))
    assert out[0].min() < 0
    with pytest.warns(UserWarning, match="returned list"):
        trainer(PostHocCalibration(apply=True)).predict(Classifier(returns="list"), loader(40))


@pytest.mark.parametrize("method", METHODS)
def test_state_goes_through_a_checkpoint(method: str, tmp_path: Path) -> None:
    first, second = PostHocCalibration(method), PostHocCalibration(method)
    run = trainer(first, max_epochs=1)
    run.fit(Classifier(), loader(), loader(300, seed=1))
    run.save_checkpoint(tmp_path / "a.ckpt")
    trainer(second, max_epochs=1, limit_val_batches=0).fit(
        Classifier(), loader(), loader(), ckpt_path=tmp_path / "a.ckpt"
    )
    z = torch.randn(9, CLASSES)
    assert torch.equal(second.calibrate(z), first.calibrate(z))


def test_attaching_it_changes_no_bit() -> None:
    class WithData(Classifier):
        def train_dataloader(self) -> Any:
            return loader()

        def val_dataloader(self) -> Any:
            return loader(seed=1)

    # A closed form, one that counts, and the one that starts from random numbers.
    for method in ("temperature", "isotonic", "correctness_aware"):
        train_twice(WithData, [PostHocCalibration(method, name="own")], own="own/", max_epochs=1)
    others = [DriftMonitor(name="own/drift"), CalibrationMonitor(name="own/calibration")]
    run = train_twice(WithData, others, own="own/", max_epochs=2)
    assert "own/calibration/val/ece_classwise" in run.trainer.callback_metrics


# ------------------------------------------------------------------ what cannot be fitted
class Soft(Classifier):
    def step(self, batch: Any) -> Tensor:
        soft = nn.functional.one_hot(batch[1].clamp(min=0), CLASSES).float()
        return self.compute_loss(logits=self.head(batch[0]), target=soft)


class Silent(Classifier):
    def validation_step(self, batch: Any, _: int) -> None:
        pass


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (lambda: Classifier("hidden"), "pass logits="),
        (Soft, "class indices"),
        (Silent, "did not call compute_loss"),
    ],
)
def test_without_logits_it_says_so_once(module: Any, says: str) -> None:
    callback = PostHocCalibration()
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        run = trainer(callback)
        run.fit(module(), loader(), loader())
    told = [str(w.message) for w in caught if "PostHocCalibration" in str(w.message)]
    assert len(told) == 1
    assert says in told[0]
    assert logged(run) == {}
    assert not callback.calibrator.fitted


def test_arguments_are_checked() -> None:
    with pytest.raises(ValueError, match="'platt'"):
        PostHocCalibration("platt")
    with pytest.raises(ValueError, match="max_rows"):
        PostHocCalibration(max_rows=1)
    callback = PostHocCalibration()
    with pytest.raises(RuntimeError, match=r"trainer\.validate"):
        callback.calibrate(torch.zeros(2, 3))
    trainer(callback).validate(Classifier(), loader(), verbose=False)
    with pytest.raises(ValueError, match="4 classes"):
        callback.calibrate(torch.zeros(2, 3))


@pytest.mark.parametrize(
    ("key", "kind"), [("post_hoc_calibration", PostHocCalibration), ("drift", DriftMonitor)]
)
def test_the_config_is_the_class(key: str, kind: Any) -> None:
    require_config_is_the_class(key, kind)


# ------------------------------------------------------------------ two ranks
VALIDATION = data(120, seed=1)


def observed(rows: Any, **kwargs: Any) -> dict[str, Any]:
    callback, drift, module = PostHocCalibration(), DriftMonitor(), Classifier()
    other = OODMonitor(DataLoader(data(90, seed=2), batch_size=32))  # three batches
    run = trainer(callback, drift, other, use_distributed_sampler=False, **kwargs)
    run.validate(module, DataLoader(rows, batch_size=32), verbose=False)
    with torch.no_grad():
        module.head.weight.mul_(0.3)
    out = logged(run) | logged(run, "ood/")
    run.validate(module, DataLoader(rows, batch_size=32), verbose=False)
    return {"first": out, "psi": logged(run, "drift/"), "reference": drift.reference}


def worker(rank: int) -> Any:
    # Uneven: 100 rows in 4 batches, and 20 in one.
    mine = Subset(VALIDATION, range(100) if rank == 0 else range(100, 120))
    return observed(mine, devices=2, strategy="ddp")


@pytest.mark.slow
def test_two_ranks_fit_what_one_does(tmp_path: Path) -> None:
    zero, one = on_ranks(worker, tmp_path)
    single = observed(VALIDATION)
    for found in (zero, one):
        assert found["first"] == pytest.approx(single["first"], rel=1e-5)
        assert found["psi"] == pytest.approx(single["psi"], rel=1e-5)
        assert torch.equal(found["reference"], single["reference"])
    assert single["psi"]["drift/psi"] > 0.25
    assert len([key for key in single["first"] if key.startswith("ood/")]) == 8
