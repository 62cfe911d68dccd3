# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The calibration monitor against stored logits and loops; two ranks: test_entropy_monitor.py."""

from __future__ import annotations

import csv
import math
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import require_config_is_the_class

from lightning_losses import LossMixin, Objective, Term, build_objective
from lightning_losses.callbacks import CalibrationMonitor
from lightning_losses.callbacks.monitors.calibration import COLUMNS, LOGGED
from lightning_losses.losses import CrossEntropy
from lightning_losses.metrics import StreamingCalibration, top_label

IGNORED = -100
BATCH, CLASSES, WIDTH = 16, 4, 6
Epochs = list[list[tuple[Tensor, Tensor]]]


class Classifier(LossMixin, L.LightningModule):
    """A classifier that remembers the logits of every validation and test batch, epoch by epoch."""

    def __init__(self, route: str = "logits") -> None:
        super().__init__()
        torch.manual_seed(1)
        self.body, self.head = nn.Linear(5, WIDTH), nn.Linear(WIDTH, CLASSES)
        self.loss = build_objective("ce")
        self.route = route
        self.epochs: Epochs = []

    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        hidden = self.body(x)
        if self.route == "logits":
            return self.compute_loss(logits=self.head(hidden), target=y)
        return self.compute_loss(
            hidden=hidden, head_weight=self.head.weight, head_bias=self.head.bias, target=y
        )

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.compute(batch)

    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if not self.trainer.sanity_checking:
            if batch_idx == dataloader_idx == 0:
                self.epochs.append([])
            self.epochs[-1].append((self.head(self.body(batch[0])), batch[1]))
        self.compute(batch)

    def test_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        self.validation_step(batch, batch_idx, dataloader_idx)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.5, momentum=0.9)


class Heard(CalibrationMonitor):
    """Keeps what it logs at the end of each epoch."""

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.heard: list[dict[str, float]] = []

    def report(self, trainer: L.Trainer, module: L.LightningModule, stage: str) -> None:
        log_dict, numbers = self.log_dict, {}

        def keep(values: dict[str, Tensor], **kwargs: Any) -> None:
            numbers.update({key: float(value) for key, value in values.items()})
            log_dict(values, **kwargs)

        self.log_dict = keep
        super().report(trainer, module, stage)
        self.log_dict = log_dict
        self.heard.append(numbers)


def data(n: int, seed: int) -> TensorDataset:
    """Something to learn, with wrong labels, and a fifth ignored."""
    g = torch.Generator().manual_seed(seed)
    x, wrong = torch.randn(n, 5, generator=g), torch.rand(n, generator=g) < 0.25
    y = (x @ torch.randn(5, CLASSES, generator=torch.Generator().manual_seed(9))).argmax(1)
    y = torch.where(wrong, torch.randint(CLASSES, (n,), generator=g), y)
    y[torch.rand(n, generator=g) < 0.2] = IGNORED
    return TensorDataset(x, y)


def loader(n: int = 64, seed: int = 0, batch_size: int = BATCH) -> DataLoader[Any]:
    return DataLoader(data(n, seed), batch_size=batch_size)


# 76 rows: the last of five batches has 12.
def validation() -> DataLoader[Any]:
    return loader(76, seed=1)


def trainer(*callbacks: L.Callback, **kwargs: Any) -> L.Trainer:
    quiet = {
        "logger": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "enable_checkpointing": False,
        "accelerator": "cpu",
        "devices": 1,
        "max_epochs": 2,
        "num_sanity_val_steps": 0,
    }
    return L.Trainer(callbacks=list(callbacks), **(quiet | kwargs))


# ------------------------------------------------------------------ the slow, obvious reference
def by_hand(batches: list[tuple[Tensor, Tensor]], bins: int = 15) -> dict[str, Any]:
    rows = []  # (confidence, correct, nll, brier)
    for logits, target in batches:
        for z, y in zip(logits.double().tolist(), target.tolist(), strict=True):
            if y == IGNORED:
                continue
            total = sum(math.exp(v) for v in z)
            p = [math.exp(v) / total for v in z]
            brier = sum((p[k] - (k == y)) ** 2 for k in range(CLASSES))
            rows.append((max(p), float(p.index(max(p)) == y), -math.log(p[y]), brier))
    n = len(rows)
    confidence, correct, nll, brier = ([row[i] for row in rows] for i in range(4))
    # The bin of a row: the last one that opens at or below its confidence.
    of = [max(k for k in range(bins) if c >= k / bins) for c in confidence]
    held = [[row for row, b in zip(rows, of, strict=True) if b == k] for k in range(bins)]
    gaps = [sum(row[0] - row[1] for row in group) / n for group in held]
    table = [
        (k / bins, (k + 1) / bins, len(g), *(sum(row[i] for row in g) / len(g) for i in (0, 1)))
        for k, g in enumerate(held)
        if g
    ]
    return {
        "ece": sum(abs(gap) for gap in gaps),
        "over": sum(max(gap, 0) for gap in gaps),
        "under": sum(max(-gap, 0) for gap in gaps),
        "gap": sum(gaps),
        "brier": sum(brier) / n,
        "nll": sum(nll) / n,
        "accuracy": sum(correct) / n,
        "auroc_correctness": roc_auc_score(correct, confidence),
        "ece_classwise": classwise(batches, bins),
        "table": table,
    }


def classwise(batches: list[tuple[Tensor, Tensor]], bins: int) -> float:
    """Mean over classes of the calibration error of p_k against "it is k"."""
    p = torch.cat([logits for logits, _ in batches]).double().softmax(1)
    y = torch.cat([target for _, target in batches])
    p, y = p[y != IGNORED], y[y != IGNORED]
    errors = []
    for k in range(CLASSES):
        of = [max(b for b in range(bins) if c >= b / bins) for c in p[:, k].tolist()]
        gaps = [0.0] * bins
        for c, hit, b in zip(p[:, k].tolist(), (y == k).tolist(), of, strict=True):
            gaps[b] += (c - hit) / len(p)
        errors.append(sum(abs(gap) for gap in gaps))
    return sum(errors) / CLASSES


def agree(found: dict[str, float], batches: Any, stage: str, name: str = "calibration") -> None:
    expected = by_hand(batches)
    expected.pop("table")
    if f"{name}/{stage}/ece_classwise" not in found:  # the step passed no logits
        expected.pop("ece_classwise")
    # Sorted measures have references in the metric's own tests; here: it got the same rows.
    metric = StreamingCalibration()
    for logits, target in batches:
        metric.update(*top_label(logits, target))
    others = {key: float(value) for key, value in metric.compute().items() if key in LOGGED}
    expected = others | expected
    assert set(expected) | {"ece_classwise"} == set(LOGGED)
    numbers = {f"{name}/{stage}/{key}": value for key, value in expected.items()}
    here = {key: v for key, v in found.items() if key.startswith(f"{name}/{stage}/")}
    assert here.keys() >= numbers.keys()
    # The fine histogram ties rows that share one of 1024 bins: a few of ~500 pairs here.
    assert {key: here[key] for key in numbers} == pytest.approx(numbers, abs=6e-3)
    # float32 confidences may fall on the other side of a fine edge, or be another bin's maximum.
    rough = {"auroc_correctness", "ece_equal_mass", "ece_debiased", "aurc", "augrc", "ks"}
    rough |= {"smece", "smece_fixed"}
    exact = [k for k in numbers if k.split("/")[-1] not in rough]
    assert {k: here[k] for k in exact} == pytest.approx({k: numbers[k] for k in exact}, abs=2e-6)


# ------------------------------------------------------------------ numbers
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_logs_what_the_logits_say_each_epoch(route: str) -> None:
    monitor, module = Heard(), Classifier(route)
    # A sanity check of two batches comes first and must leave no trace.
    trainer(monitor, num_sanity_val_steps=2, max_epochs=3).fit(module, loader(), validation())
    assert len(monitor.heard) == len(module.epochs) == 3
    for numbers, batches in zip(monitor.heard, module.epochs, strict=True):
        agree(numbers, batches, "val")
        missing = {key for key in LOGGED if f"calibration/val/{key}" not in numbers}
        assert missing == (set() if route == "logits" else {"ece_classwise"})
    assert monitor.heard[0] != monitor.heard[1]


def test_both_routes_agree() -> None:
    heard = []
    for route in ("logits", "hidden"):
        monitor = Heard()
        trainer(monitor, max_epochs=1).fit(Classifier(route), loader(), validation())
        heard += monitor.heard
    del heard[0]["calibration/val/ece_classwise"]  # needs logits
    assert heard[0] == pytest.approx(heard[1], abs=1e-5)


def test_test_and_validate_and_two_dataloaders() -> None:
    monitor, module = Heard(), Classifier()
    run = trainer(monitor)
    run.test(module, validation(), verbose=False)
    agree(monitor.heard[0], module.epochs[0], "test")
    run.validate(module, [validation(), loader(40, seed=2)], verbose=False)
    batches = module.epochs[1]
    agree(monitor.heard[1], batches[:5], "val")
    agree(monitor.heard[1], batches[5:], "val/dataloader_idx_1")
    assert {row["stage"] for row in monitor.table} == {"val", "val/dataloader_idx_1"}


def test_half_precision_logits_have_float32_confidences() -> None:
    monitor, module = Heard(), Classifier()
    trainer(monitor, precision="bf16-mixed").validate(module, validation(), verbose=False)
    agree(monitor.heard[0], module.epochs[0], "val")


def test_values_are_there_for_other_callbacks() -> None:
    from lightning.pytorch.callbacks import EarlyStopping

    stopping = EarlyStopping("calibration/val/ece", patience=0, stopping_threshold=1.0)
    run = trainer(Heard(), stopping, max_epochs=9)
    run.fit(Classifier(), loader(), validation())
    assert run.current_epoch == 1


# ------------------------------------------------------------------ the table and its file
def read(path: str | Path) -> list[dict[str, str]]:
    with open(path) as file:
        return list(csv.DictReader(file))


def test_the_reliability_table(tmp_path: Path) -> None:
    monitor, module = Heard(), Classifier()
    run = trainer(monitor, logger=CSVLogger(tmp_path))
    run.fit(module, loader(), validation())
    rows = read(Path(run.log_dir) / "reliability.csv")
    assert tuple(rows[0]) == COLUMNS
    assert [(row["stage"], row["epoch"]) for row in rows] == [("val", "0")] * 15 + [
        ("val", "1")
    ] * 15
    for epoch, batches in enumerate(module.epochs):
        filled = [r for r in rows if r["epoch"] == str(epoch) and int(r["count"])]
        found = [tuple(float(row[key]) for key in COLUMNS[2:]) for row in filled]
        for bin_, expected in zip(found, by_hand(batches)["table"], strict=True):
            assert bin_ == pytest.approx(expected, abs=2e-6)
    empty = next(row for row in rows if row["count"] == "0")
    assert (empty["confidence"], empty["accuracy"]) == ("", "")
    # What is kept is the last epoch.
    assert [row["count"] for row in monitor.table] == [int(row["count"]) for row in rows[15:]]
    assert all(row["epoch"] == 1 for row in monitor.table)


def test_an_epoch_measured_again_replaces_its_table(tmp_path: Path) -> None:
    # Two validations an epoch, then a test: the file keeps the last table of each stage and epoch.
    monitor, module = Heard(), Classifier()
    run = trainer(monitor, logger=CSVLogger(tmp_path), val_check_interval=2)
    run.fit(module, loader(), validation())
    assert len(module.epochs) == 4
    run.test(module, validation(), verbose=False)
    rows = read(Path(run.log_dir) / "reliability.csv")
    assert [(r["stage"], r["epoch"]) for r in rows[::15]] == [
        ("val", "0"),
        ("val", "1"),
        ("test", "2"),
    ]
    filled = [float(r["accuracy"]) for r in rows[15:30] if int(r["count"])]
    assert filled == pytest.approx(
        [bin_[-1] for bin_ in by_hand(module.epochs[3])["table"]], abs=1e-6
    )


def test_another_run_in_the_folder_begins_the_table_anew(tmp_path: Path) -> None:
    def fit(epochs: int, monitor: Heard, path: str | None = None) -> list[str]:
        logger = CSVLogger(tmp_path, name="", version="")
        run = trainer(monitor, logger=logger, max_epochs=epochs)
        run.fit(Classifier(), loader(), validation(), ckpt_path=path)
        run.save_checkpoint(tmp_path / "last.ckpt")
        return [row["epoch"] for row in read(tmp_path / "reliability.csv")][::15]

    used = Heard()
    assert fit(3, used) == ["0", "1", "2"]
    assert fit(2, Heard()) == ["0", "1"]
    assert fit(1, used) == ["0"]
    assert fit(2, Heard(), str(tmp_path / "last.ckpt")) == ["0", "1"]  # resumed: goes on


def test_a_table_that_cannot_be_written_is_told_once(tmp_path: Path) -> None:
    (tmp_path / "reliability.csv").mkdir()
    run = trainer(Heard(), logger=CSVLogger(tmp_path, name="", version=""))
    with pytest.warns(UserWarning, match="cannot be written") as caught:
        run.fit(Classifier(), loader(), validation())
    assert run.current_epoch == 2
    assert len([w for w in caught if "cannot be written" in str(w.message)]) == 1


def test_a_run_without_logger_writes_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monitor = Heard()
    trainer(monitor, max_epochs=1).fit(Classifier(), loader(), validation())
    trainer(Heard(), fast_dev_run=True, logger=True).fit(Classifier(), loader(), validation())
    assert not list(tmp_path.iterdir())
    assert len(monitor.table) == 15


def test_two_monitors_in_one_trainer(tmp_path: Path) -> None:
    fine, coarse = Heard(), Heard(bins=3, name="coarse")
    module = Classifier()
    run = trainer(fine, coarse, logger=CSVLogger(tmp_path))
    run.fit(module, loader(), validation())
    expected = by_hand(module.epochs[-1], bins=3)
    agree(fine.heard[-1], module.epochs[-1], "val")
    assert coarse.heard[-1]["coarse/val/ece"] == pytest.approx(expected["ece"], abs=2e-6)
    assert coarse.heard[-1]["coarse/val/ece"] != fine.heard[-1]["calibration/val/ece"]
    assert len(read(Path(run.log_dir) / "reliability.csv")) == 30
    assert len(read(Path(run.log_dir) / "reliability_coarse.csv")) == 6


# ------------------------------------------------------------------ what cannot be measured
class Regressor(Classifier):
    def __init__(self) -> None:
        super().__init__()
        term = {"_target_": "torch.nn.MSELoss", "reduction": "none", "inputs": {"input": "logits"}}
        self.loss = build_objective({"mse": term})

    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        return self.compute_loss(logits=self.head(self.body(x))[:, 0], target=y.clamp(min=0) / 10)


class Soft(Classifier):
    def compute(self, batch: Any) -> Tensor:
        x, y = batch
        soft = nn.functional.one_hot(y.clamp(min=0), CLASSES).float()
        return self.compute_loss(logits=self.head(self.body(x)), target=soft)


@pytest.mark.parametrize("kind", [Regressor, Soft])
def test_without_class_targets_it_says_so_once(kind: Any) -> None:
    monitor = Heard()
    with pytest.warns(UserWarning, match="class indices") as caught:
        trainer(monitor).fit(kind(), loader(), validation())
    assert len([w for w in caught if "class indices" in str(w.message)]) == 1
    assert not [w for w in caught if "before the ``update``" in str(w.message)]
    assert monitor.heard == [{}, {}]
    assert monitor.table == []


class Silent(Classifier):
    def validation_step(self, batch: Any, batch_idx: int, dataloader_idx: int = 0) -> None:
        if batch_idx in (1, 3):
            super().validation_step(batch, batch_idx, dataloader_idx)


def test_only_batches_that_computed_a_loss_count() -> None:
    # A record left over from training or from the batch before must not be counted in its place.
    monitor, module = Heard(), Silent()
    module.epochs = [[]]
    with pytest.warns(UserWarning, match="did not call compute_loss"):
        trainer(monitor, max_epochs=1).fit(module, loader(), validation())
    assert len(module.epochs[0]) == 2
    agree(monitor.heard[0], module.epochs[0], "val")


def test_nothing_that_counts_logs_nothing() -> None:
    x, y = data(32, 3).tensors
    monitor = Heard()
    ignored = DataLoader(TensorDataset(x, torch.full_like(y, IGNORED)), batch_size=BATCH)
    trainer(monitor).validate(Classifier(), ignored, verbose=False)
    assert monitor.heard == [{}]


def test_what_is_undefined_is_not_logged() -> None:
    # All right, so ranking right above wrong means nothing; all else does.
    module, monitor = Classifier(), Heard()
    x = data(32, 3).tensors[0]
    y = module.head(module.body(x)).argmax(1)
    own = DataLoader(TensorDataset(x, y), batch_size=BATCH)
    trainer(monitor).validate(module, own, verbose=False)
    missing = {f"calibration/val/{key}" for key in LOGGED} - set(monitor.heard[0])
    assert missing == {"calibration/val/auroc_correctness"}
    assert all(math.isfinite(value) for value in monitor.heard[0].values())


def test_target_transforms_leave_the_true_target_alone() -> None:
    class Smooth(nn.Module):
        def forward(self, target: Tensor) -> Tensor:
            return nn.functional.one_hot(target, CLASSES).float() * 0.6 + 0.4 / CLASSES

    monitor, module = Heard(), Classifier()
    module.loss = Objective({"ce": Term(CrossEntropy(), target_transform=Smooth())})
    trainer(monitor).validate(module, validation(), verbose=False)
    agree(monitor.heard[0], module.epochs[0], "val")


# ------------------------------------------------------------------ leaving no trace, resuming
class Spy(L.Callback):
    """What the objective is asked for while training, and after a run."""

    def __init__(self) -> None:
        self.watched: set[str] = set()

    def on_train_batch_end(self, trainer: Any, pl_module: Any, *_: Any) -> None:
        self.watched |= set(pl_module.loss._watched)
        assert not pl_module.loss_record.captured


def test_training_carries_nothing_for_it() -> None:
    spy, module = Spy(), Classifier()
    trainer(Heard(), spy).fit(module, loader(), validation())
    assert not spy.watched
    assert not module.loss._watched


def test_an_interrupted_validation_leaves_nothing_behind() -> None:
    module = Classifier()

    class Stop(L.Callback):
        def on_validation_batch_end(self, *_: Any) -> None:
            raise RuntimeError("stop here")

    with pytest.raises(RuntimeError, match="stop here"):
        trainer(Heard(), Stop()).fit(module, loader(), validation())
    assert not module.loss._watched


def test_resuming_is_going_on(tmp_path: Path) -> None:
    straight = Heard()
    trainer(straight, max_epochs=3).fit(Classifier(), loader(), validation())
    half, rest = Heard(), Heard()
    stopped = trainer(half, max_epochs=1)
    stopped.fit(Classifier(), loader(), validation())
    stopped.save_checkpoint(tmp_path / "half.ckpt")
    trainer(rest, max_epochs=3).fit(
        Classifier(), loader(), validation(), ckpt_path=tmp_path / "half.ckpt"
    )
    assert len(rest.heard) == 2
    assert half.heard + rest.heard == straight.heard
    assert [row["count"] for row in rest.table] == [row["count"] for row in straight.table]


# ------------------------------------------------------------------ config
def test_the_config_is_the_class() -> None:
    require_config_is_the_class("calibration", CalibrationMonitor)
