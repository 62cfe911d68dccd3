# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a training leaves in an offline Weights & Biases run, read back record by record."""

from __future__ import annotations

import json
import os
import struct
import sys
import time
import types
import warnings
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import pytest
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset
from training import require_equal, train

from lightning_losses import LossMixin, build_objective
from lightning_losses.callbacks.base.alerts import announce
from lightning_losses.callbacks.monitors.attention_entropy import AttentionEntropyMonitor
from lightning_losses.callbacks.monitors.calibration import CalibrationMonitor
from lightning_losses.callbacks.monitors.drift import DriftMonitor
from lightning_losses.dashboard.charts.diagrams import BINS
from lightning_losses.dashboard.runs.wandb_log import WandbFile, read_payloads, read_wandb_file
from lightning_losses.dashboard.runs.wandb_run import read_offline_runs
from lightning_losses.dashboard.wandb_ui.callback import WandbDashboard
from lightning_losses.dashboard.wandb_ui.names import metrics

wandb = pytest.importorskip("wandb")
pytest.importorskip("vl_convert")
from lightning.pytorch.loggers import CSVLogger, WandbLogger  # noqa: E402

pytestmark = pytest.mark.xdist_group("wandb_dashboard")  # one run that is read by all

CLASSES, STEPS, EPOCHS = 4, 6, 2
QUIET = {"enable_progress_bar": False, "enable_model_summary": False, "log_every_n_steps": 1}


class Attentive(LossMixin, L.LightningModule):
    """One attention layer of two heads, then a mean over positions and a linear head."""

    def __init__(self) -> None:
        super().__init__()
        self.attention = nn.MultiheadAttention(8, 2, batch_first=True)
        self.head = nn.Linear(8, CLASSES)
        self.loss = build_objective(["ce", "focal"])

    def step(self, batch: Any) -> Tensor:
        x, y = batch
        h, _ = self.attention(x, x, x, need_weights=False)
        return self.compute_loss(logits=self.head(h.mean(1)), target=y)

    def training_step(self, batch: Any, _: int) -> Tensor:
        return self.step(batch)

    def validation_step(self, batch: Any, _: int) -> None:
        self.step(batch)

    def test_step(self, batch: Any, batch_idx: int) -> None:
        self.step(batch)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def loader(self, batches: int) -> DataLoader[Any]:
        g = torch.Generator().manual_seed(batches)
        x = torch.randn(16 * batches, 5, 8, generator=g)
        return DataLoader(TensorDataset(x, x.mean(1)[:, :CLASSES].argmax(1)), batch_size=16)

    def train_dataloader(self) -> DataLoader[Any]:
        return self.loader(STEPS)

    def val_dataloader(self) -> DataLoader[Any]:
        return self.loader(3)

    def test_dataloader(self) -> DataLoader[Any]:
        return self.loader(2)


class Speaker(L.Callback):
    """A monitor whose loudest tier comes in the last step."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        if trainer.global_step == STEPS * EPOCHS:
            announce(trainer, "stop", "Out of bounds", "Lower the learning rate.")

    def on_validation_end(self, trainer: L.Trainer, pl_module: Any) -> None:
        pl_module.head.weight.data *= 20  # confidences drift until the next validation


def wandb_logger(folder: Path, **options: Any) -> WandbLogger:
    """Offline, whatever the process has seen: Lightning's offline=True only sets WANDB_MODE, and
    W&B reads that once in a process."""
    settings = wandb.Settings(silent=True, console="off", x_disable_meta=True, x_disable_stats=True)
    return WandbLogger(save_dir=folder, project="p", mode="offline", settings=settings, **options)


def trainer(logger: Any, *callbacks: L.Callback, **options: Any) -> L.Trainer:
    options = {"max_epochs": EPOCHS, "enable_checkpointing": False} | QUIET | options
    return L.Trainer(accelerator="cpu", logger=logger, callbacks=list(callbacks), **options)


def finished(logger: WandbLogger) -> Path:
    """The run's file, once everything is in it: finish returns before that."""
    path = Path(logger.experiment.settings.sync_file)
    logger.experiment.finish()
    deadline = time.monotonic() + 20
    while not read_wandb_file(path).exited:
        assert time.monotonic() < deadline, "no exit record after 20 seconds"
        time.sleep(0.05)
    return path


def stand_in_for_pillow(patch: pytest.MonkeyPatch) -> None:
    """All that wandb.Image asks of pillow for a file is its size; here it is read from the PNG."""

    class Picture:
        def __init__(self, path: str) -> None:
            self.size = struct.unpack(">II", Path(path).read_bytes()[16:24])

        def load(self) -> None: ...

    package, module = types.ModuleType("PIL"), types.ModuleType("PIL.Image")
    module.open = package.open = Picture
    package.Image = module
    patch.setitem(sys.modules, "PIL", package)
    patch.setitem(sys.modules, "PIL.Image", module)


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """A fit and a test, offline."""
    before = os.environ.get("WANDB_MODE")
    with pytest.MonkeyPatch.context() as patch:
        try:
            import PIL.Image  # noqa: F401
        except ImportError:
            stand_in_for_pillow(patch)
        L.seed_everything(0, verbose=False)
        logger = wandb_logger(tmp_path_factory.mktemp("run"), offline=True)
        module = Attentive()
        # First of all callbacks, so that it must not rely on running after the monitors.
        one = trainer(
            logger,
            WandbDashboard(),
            CalibrationMonitor(bins=10),
            CalibrationMonitor(bins=5, name="coarse"),
            AttentionEntropyMonitor(every_n_steps=4),
            DriftMonitor(threshold=1e-6, action="alert"),
            Speaker(),
        )
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            one.fit(module)
            assert os.environ.get("WANDB_MODE") == before  # although offline=True changes it
            one.test(module, verbose=False)
        done = finished(logger)
    assert os.environ.get("WANDB_MODE") == before
    return done


@pytest.fixture(scope="module")
def run(path: Path) -> WandbFile:
    return read_wandb_file(path)


def rows_with(run: WandbFile, name: str) -> list[dict[str, Any]]:
    return [row for row in run.history if name in row]


def content(path: Path, row: dict[str, Any], name: str) -> bytes:
    """The file of a logged table or picture."""
    return (path.parent / "files" / row[f"{name}.path"]).read_bytes()


def test_axes_and_summaries_are_defined(run: WandbFile) -> None:
    defined = {one["name"]: one for one in run.metrics}
    for metric in metrics():
        assert defined[metric.name]["step_metric"] == "trainer/global_step"
        assert ",".join(defined[metric.name]["summary"]) == metric.summary
        # W&B raises on any other *; Lightning would have swallowed neither.
        assert "*" not in metric.name[:-1]
    names = {metric.name for metric in metrics()}
    assert {"train/loss", "calibration/val/ece", "calibration/test/ece"} <= names
    assert {"train/loss/*", "step_radius/rho_*", "information_plane/*"} <= names


def test_summaries_keep_the_extreme_and_the_last(run: WandbFile) -> None:
    for name, extreme in (("val/loss", min), ("calibration/val/accuracy", max)):
        values = [row[name] for row in rows_with(run, name)]
        assert len(values) == EPOCHS
        assert run.summary[name] == pytest.approx(
            {extreme.__name__: extreme(values), "last": values[-1]}
        )
    drift = [row["drift/psi"] for row in rows_with(run, "drift/psi")]
    assert run.summary["drift/psi"]["max"] == max(drift)
    assert run.summary["train/loss/ce"] == rows_with(run, "train/loss/ce")[-1]["train/loss/ce"]


def test_every_row_has_its_step(run: WandbFile) -> None:
    assert all("trainer/global_step" in row for row in run.history)


def test_tables(run: WandbFile, path: Path) -> None:
    name = "tables/reliability"
    logged = rows_with(run, f"{name}._type")
    assert [row[f"{name}._type"] for row in logged] == ["table-file"] * (EPOCHS + 1)
    tables = [json.loads(content(path, row, name)) for row in logged]
    assert [{(row[0], row[1]) for row in table["data"]} for table in tables] == [
        {("val", 0)},
        {("val", 1)},
        {("test", 2)},
    ]
    for table, rows in zip(tables, (48, 48, 32), strict=True):
        assert table["columns"] == list(BINS)
        assert len(table["data"]) == 10
        assert sum(row[4] for row in table["data"]) == rows
    # A second monitor of the class does not overwrite the first.
    coarse = rows_with(run, "tables/reliability_coarse._type")
    assert len(json.loads(content(path, coarse[0], "tables/reliability_coarse"))["data"]) == 5

    name = "tables/attention_entropy"
    logged = rows_with(run, f"{name}._type")
    newest = [json.loads(content(path, row, name))["data"] for row in logged]
    # Measured at 0, 4, 8: epoch 0 ends at 6 and logs the newest. Nothing is logged twice.
    assert [{row[0] for row in rows} for rows in newest] == [{4}, {8}]
    assert all([row[2] for row in rows] == [0, 1] for rows in newest)


def test_a_picture_stands_where_its_scalars_do(run: WandbFile, path: Path) -> None:
    for stage, times in (("val", EPOCHS), ("test", 1)):
        name = f"calibration/{stage}/diagram"
        pictures = rows_with(run, f"{name}._type")
        assert [row[f"{name}._type"] for row in pictures] == ["image-file"] * times
        scalars = rows_with(run, f"calibration/{stage}/ece")
        steps = [row["trainer/global_step"] for row in pictures]
        assert steps == [row["trainer/global_step"] for row in scalars]
        for row in pictures:
            png = content(path, row, name)
            assert png.startswith(b"\x89PNG")
            assert struct.unpack(">II", png[16:24]) == (row[f"{name}.width"], row[f"{name}.height"])
            assert row[f"{name}.width"] > 600
    assert len(rows_with(run, "attention_entropy/diagram._type")) == 2
    assert len(rows_with(run, "coarse/val/diagram._type")) == EPOCHS


def test_histograms_hold_the_counts_of_the_table(run: WandbFile, path: Path) -> None:
    name = "calibration/val/confidence_histogram"
    logged = rows_with(run, f"{name}._type")
    assert [row[f"{name}._type"] for row in logged] == ["histogram"] * EPOCHS
    for row in logged:
        table = json.loads(content(path, row, "tables/reliability"))["data"]
        assert row[f"{name}.values"] == [cells[4] for cells in table]
        edges = [cells[2] for cells in table] + [table[-1][3]]
        assert row[f"{name}.bins"] == pytest.approx(edges)
        assert edges[0] == 0
        assert edges[-1] == 1


def test_alerts_say_what_to_do(run: WandbFile, path: Path) -> None:
    titles = [title for title, _ in run.alerts]
    assert titles == ["Out of bounds"]
    assert run.alerts[0][1] == "Lower the learning rate."
    from wandb.proto.wandb_internal_pb2 import Record

    levels = []
    for payload in read_payloads(path.read_bytes(), path.name)[0]:
        record = Record()
        record.ParseFromString(payload)
        if record.WhichOneof("record_type") == "alert":
            levels.append(record.alert.level)
    assert levels == ["ERROR"]


def test_the_local_report_finds_the_tables(path: Path) -> None:
    (found,) = read_offline_runs([path])
    stages = {(row["stage"], row["epoch"]) for row in found.tables["reliability"]}
    assert stages == {("val", 0.0), ("val", 1.0), ("test", 2.0)}
    assert {row["step"] for row in found.tables["attention_entropy"]} == {4.0, 8.0}


def test_without_a_wandb_logger_it_says_so_once(tmp_path: Path) -> None:
    callback = WandbDashboard()
    one, module = trainer(CSVLogger(tmp_path), callback, CalibrationMonitor()), Attentive()
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        one.fit(module)
        one.test(module, verbose=False)
    said = [str(warning.message) for warning in seen if "WandbDashboard" in str(warning.message)]
    assert len(said) == 1
    assert "the trainer has no WandbLogger" in said[0]


def test_it_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Bit for bit; pictures included, as they and W&B draw random names."""
    stand_in_for_pillow(monkeypatch)
    loggers = [CSVLogger(tmp_path), wandb_logger(tmp_path)]
    monitors = CalibrationMonitor(), AttentionEntropyMonitor(every_n_steps=4)
    plain = train(Attentive, monitors, logger=loggers[0], max_epochs=EPOCHS)
    monitors = CalibrationMonitor(), AttentionEntropyMonitor(every_n_steps=4)
    watched = train(Attentive, [WandbDashboard(), *monitors], logger=loggers[1], max_epochs=EPOCHS)
    loggers[1].experiment.finish()
    require_equal("module", plain.module.state_dict(), watched.module.state_dict())
    require_equal("logged", plain.logged, watched.logged)
    require_equal("random", plain.random, watched.random)


def test_without_pillow_everything_else_is_logged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "PIL.Image", None)  # which makes importing it fail
    logger = wandb_logger(tmp_path)
    with pytest.warns(UserWarning, match=r"lightning-losses\[wandb\]") as seen:
        trainer(logger, WandbDashboard(), CalibrationMonitor()).fit(Attentive())
    assert sum("pictures are left out" in str(warning.message) for warning in seen) == 1
    found = read_wandb_file(finished(logger))
    assert len(rows_with(found, "calibration/val/confidence_histogram._type")) == EPOCHS
    assert len(rows_with(found, "tables/reliability._type")) == EPOCHS
    assert not rows_with(found, "calibration/val/diagram._type")


def test_the_mode_is_put_back_after_a_crash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "disabled")

    class Crash(L.Callback):
        def on_train_batch_end(self, *_: Any) -> None:
            raise RuntimeError("half-way")

    logger = wandb_logger(tmp_path, offline=True)
    with pytest.raises(RuntimeError, match="half-way"):
        trainer(logger, WandbDashboard(), Crash()).fit(Attentive())
    assert os.environ["WANDB_MODE"] == "disabled"
    logger.experiment.finish()


def test_the_shipped_logger_leaves_the_mode_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from lightning_losses.config.catalogue import yaml_text

    monkeypatch.delenv("WANDB_MODE", raising=False)
    body = OmegaConf.create(yaml_text("logger", "wandb"))
    # Below the root, where it stands in a run, because `project` is looked up at the root.
    config = OmegaConf.create({"run_dir": str(tmp_path), "logger": {"wandb": body}})
    settings = wandb.Settings(silent=True, console="off")
    logger = instantiate(config.logger.wandb, settings=settings)
    assert logger.experiment.offline
    assert "WANDB_MODE" not in os.environ
    logger.experiment.finish()
    monkeypatch.setenv("WANDB_MODE", "online")  # what the user says wins
    assert config.logger.wandb.mode == "online"


def test_the_shipped_callback_is_this_one() -> None:
    from hydra.utils import instantiate
    from omegaconf import OmegaConf

    from lightning_losses.config.catalogue import yaml_text

    assert isinstance(
        instantiate(OmegaConf.create(yaml_text("callbacks", "wandb"))), WandbDashboard
    )
