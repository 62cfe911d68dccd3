# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every measurement reaches every logger once, with the step at which it was made."""

from __future__ import annotations

import csv
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import lightning as L
import pytest
import torch
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, Timer
from lightning.pytorch.loggers import CSVLogger, Logger
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, LossRecord, build_objective
from lightning_losses.callbacks import (
    CalibrationMonitor,
    EntropyMonitor,
    EntropyTarget,
    LogitHealthMonitor,
    Monitor,
    PerpGrad,
    StepRadiusController,
    StepRadiusMonitor,
)
from lightning_losses.callbacks.base.deferred_reads import DeferredReads
from lightning_losses.callbacks.base.run_end import ending_of
from lightning_losses.callbacks.base.writing import Writer

pytestmark = pytest.mark.filterwarnings("ignore")

BATCH = 8


class Lines(Logger):
    """A logger of the user's own: ``[(step, {name: value})]``."""

    name, version = "lines", "0"

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[tuple[int | None, dict[str, float]]] = []

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        pass

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        self.lines.append((step, dict(metrics)))

    def of(self, key: str) -> list[tuple[int | None, float]]:
        return [(step, line[key]) for step, line in self.lines if key in line]


class Model(LossMixin, L.LightningModule):
    """A softmax over three classes; every logged total is remembered by batch."""

    def __init__(self, loss: Any = "ce", lr: float = 0.1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.net, self.lr = nn.Linear(4, 3), lr
        self.loss = build_objective(loss)
        self.totals: list[float] = []

    def training_step(self, batch: Any, _: int) -> Tensor:
        x, y = batch
        loss = self.compute_loss(logits=self.net(x), target=y)
        self.totals.append(float(loss))
        return loss

    def validation_step(self, batch: Any, _: int) -> None:
        x, y = batch
        self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> Any:
        return torch.optim.SGD(self.parameters(), lr=self.lr)


class Stamp(Monitor):
    """Writes the total of the step that it measures, to be compared with what the step had."""

    name = "stamp"

    def measure(self, trainer: L.Trainer, module: L.LightningModule, record: LossRecord) -> None:
        self.publish(trainer, {"stamp/total": record.total, "stamp/seen": len(module.totals) - 1})


def loader(batches: int) -> DataLoader[Any]:
    g = torch.Generator().manual_seed(1)
    x = torch.randn(batches * BATCH, 4, generator=g)
    y = torch.randint(3, (batches * BATCH,), generator=g)
    return DataLoader(TensorDataset(x, y), BATCH)


def trainer(*callbacks: L.Callback, **options: Any) -> L.Trainer:
    quiet = {
        "accelerator": "cpu", "enable_progress_bar": False, "enable_model_summary": False,
        "enable_checkpointing": False, "logger": False,
    }  # fmt: skip
    return L.Trainer(callbacks=list(callbacks), **quiet | options)


# Lightning's default cadence is 50 batches: more and fewer batches an epoch than that.
@pytest.mark.parametrize("batches", [130, 6])
@pytest.mark.parametrize("cadence", [{}, {"log_every_n_steps": 1}, {"log_every_n_steps": 0}])
def test_lightnings_cadence_drops_repeats_and_moves_nothing(
    batches: int, cadence: dict[str, int], tmp_path: Path
) -> None:
    logger, file = Lines(), CSVLogger(tmp_path, name="", version="")
    run = trainer(Stamp(9), max_steps=110, logger=[logger, file], **cadence)
    module = Model()
    run.fit(module, loader(batches))
    due = list(range(0, 110, 9))
    assert [step for step, _ in logger.of("stamp/total")] == due
    assert [v for _, v in logger.of("stamp/total")] == pytest.approx(
        [module.totals[s] for s in due]
    )
    with (tmp_path / "metrics.csv").open() as lines:
        rows = [row for row in csv.DictReader(lines) if row["stamp/total"]]
    assert [int(row["step"]) for row in rows] == due
    assert [int(row["epoch"]) for row in rows] == [step // batches for step in due]


def test_the_step_is_that_of_the_loss() -> None:
    """On the axis that Lightning gives ``train/loss``, whatever it counts."""
    logger = Lines()
    module = Model()
    run = trainer(
        Stamp(1), max_epochs=2, accumulate_grad_batches=3, logger=logger, log_every_n_steps=1
    )
    run.fit(module, loader(7))
    # 7 batches in threes: steps end at batches 2, 5, 6 of each epoch; the first batch is measured.
    assert [step for step, _ in logger.of("stamp/total")] == [0, 1, 2, 3, 4, 5]
    assert [seen for _, seen in logger.of("stamp/seen")] == [0, 3, 6, 7, 10, 13]
    assert [step for step, _ in logger.of("train/loss")] == [0, 1, 2, 3, 4, 5]


class Manual(Model):
    """Two optimizers that both step in every batch, so that global_step is twice the batches."""

    automatic_optimization = False

    def training_step(self, batch: Any, index: int) -> None:
        loss = super().training_step(batch, index)
        first, second = self.optimizers()
        self.manual_backward(loss)
        first.step()
        second.step()
        first.zero_grad()

    def configure_optimizers(self) -> Any:
        return [torch.optim.SGD([p], lr=self.lr) for p in self.net.parameters()]


def test_several_optimizers_in_manual_optimisation() -> None:
    logger, module = Lines(), Manual()
    controller = StepRadiusController()
    trainer(
        Stamp(4), controller, max_epochs=1, logger=logger, log_every_n_steps=1
    ).fit(module, loader(9))  # fmt: skip
    losses = dict(logger.of("train/loss"))
    assert list(losses) == list(range(9))
    stamps = logger.of("stamp/total")
    assert [step for step, _ in stamps] == [0, 2, 4, 6, 8]  # global steps 0, 4, 8, ...
    assert all(losses[step] == pytest.approx(value) for step, value in stamps)
    assert [step for step, _ in logger.of("step_radius_controller/scale")] == list(range(9))


def test_a_resumed_run_goes_on_where_the_loss_does(tmp_path: Path) -> None:
    first = trainer(Stamp(2), max_epochs=1)
    first.fit(module := Model(), loader(5), loader(2))
    first.save_checkpoint(tmp_path / "a.ckpt")
    assert ending_of(first).rows_seen == 5 * BATCH  # of training, not of validation
    logger = Lines()
    second = trainer(Stamp(2), max_epochs=2, logger=logger, log_every_n_steps=1)
    second.fit(Model(), loader(5), ckpt_path=tmp_path / "a.ckpt")
    losses = dict(logger.of("train/loss"))
    assert [step for step, _ in logger.of("stamp/total")] == [6, 8]
    for step, value in logger.of("stamp/total"):
        assert losses[step] == pytest.approx(value)
    assert second.callbacks[0]._start == (0, 5)
    assert ending_of(second, start=second.callbacks[0]._start).rows_seen == 10 * BATCH
    again = trainer(stamp := Stamp(2), max_steps=3)
    again.fit(module, loader(5))  # the same module anew
    assert ending_of(again, start=stamp._start).rows_seen == 3 * BATCH


def test_a_spike_of_one_step_is_logged() -> None:
    """A rate 300 times the others at one step that no multiple of 50 meets."""
    logger, module = Lines(), Model()

    class Jump(L.Callback):
        def on_train_batch_start(self, trainer: L.Trainer, module: Any, batch: Any, i: int) -> None:
            trainer.optimizers[0].param_groups[0]["lr"] = 60.0 if trainer.global_step == 36 else 0.2

    trainer(Jump(), StepRadiusMonitor(every_n_steps=4), max_steps=60, logger=logger).fit(
        module, loader(12)
    )
    r = dict(logger.of("step_radius/r"))
    assert list(r) == list(range(0, 60, 4))
    assert r[36] > 1 > max(value for step, value in r.items() if step != 36)


def test_what_was_capped_counts_as_it_was_applied() -> None:
    logger = Lines()
    trainer(
        StepRadiusController(target=0.01), StepRadiusMonitor(every_n_steps=1), max_steps=6,
        logger=logger,
    ).fit(Model(lr=5.0), loader(6))  # fmt: skip
    own, applied = (dict(logger.of(f"step_radius_controller/{k}")) for k in ("r", "applied_r"))
    seen = dict(logger.of("step_radius/r"))
    assert max(own.values()) > 0.01 >= max(applied.values())
    assert applied == pytest.approx(seen)


# ------------------------------------------------------------- where nothing can be written
@pytest.mark.parametrize(
    "options",
    [{"logger": False}, {"barebones": True}, {"fast_dev_run": 3}, {"logger": [Lines(), Lines()]}],
    ids=["none", "barebones", "fast_dev_run", "two"],
)
def test_any_loggers_will_do(options: dict[str, Any]) -> None:
    callbacks = [EntropyMonitor(every_n_steps=2), LogitHealthMonitor(every_n_steps=2), PerpGrad()]
    if options.get("barebones"):
        run = L.Trainer(callbacks=callbacks, accelerator="cpu", max_steps=4, barebones=True)
    else:
        run = trainer(*callbacks, max_steps=4, **options)
    run.fit(Model(), loader(3), loader(2))
    assert {"entropy/mean", "perp_grad/removed_share"} <= run.callback_metrics.keys()
    if isinstance(options.get("logger"), list):
        for logger in options["logger"]:
            assert [s for s, _ in logger.of("entropy/mean")] == [0, 2]
            assert [s for s, _ in logger.of("perp_grad/removed_share")] == [0, 1, 2, 3]


def test_checkpoints_and_early_stopping_find_the_last_value(tmp_path: Path) -> None:
    best = ModelCheckpoint(tmp_path, monitor="stamp/total", every_n_train_steps=5, save_top_k=1)
    stop = EarlyStopping("stamp/seen", mode="min", patience=1, check_on_train_epoch_end=True)
    run = trainer(Stamp(5), best, stop, max_epochs=9, enable_checkpointing=True)
    module = Model()
    run.fit(module, loader(10))
    assert run.current_epoch < 8  # what was seen only grows, so that it never gets better
    assert float(best.best_model_score) in [pytest.approx(t) for t in module.totals]


def test_other_metrics_stay_on_the_progress_bar() -> None:
    class Shows(Model):
        def training_step(self, batch: Any, index: int) -> Tensor:
            self.log("mine", 7.0, prog_bar=True)
            return super().training_step(batch, index)

    run = trainer(EntropyMonitor(every_n_steps=1), EntropyTarget(), max_steps=3)
    with pytest.raises(ValueError, match="entropy_bonus"):
        run.fit(Shows(), loader(3))
    run = trainer(EntropyMonitor(every_n_steps=1), max_steps=3)
    run.fit(Shows(), loader(3))
    assert run.progress_bar_metrics.keys() == {"mine", "train/loss"}


def test_two_of_one_name_are_refused() -> None:
    for pair in (
        (CalibrationMonitor(bins=5), CalibrationMonitor(bins=20)),
        (StepRadiusMonitor(call=0), StepRadiusMonitor(call=1)),
        (EntropyMonitor(every_n_steps=1), EntropyMonitor(every_n_steps=2)),
    ):
        kind = type(pair[0]).__name__
        with pytest.raises(ValueError, match=rf"2 {kind} would log .*name='.*_2'"):
            trainer(*pair, max_steps=1).fit(Model(), loader(1))
    both = CalibrationMonitor(bins=5), CalibrationMonitor(bins=20, name="fine")
    run = trainer(*both, max_epochs=1)
    run.fit(Model(), loader(2), loader(2))
    assert {"calibration/val/ece", "fine/val/ece"} <= run.callback_metrics.keys()


# ---------------------------------------------------------------------- how a training ended
def ending(folder: Path) -> dict[str, str]:
    with (folder / "ended.csv").open() as file:
        (row,) = csv.DictReader(file)
    return row


class Dies(Model):
    """Raises in the middle of the third epoch."""

    def training_step(self, batch: Any, index: int) -> Tensor:
        if len(self.totals) == 11:
            raise FloatingPointError("0 / 0\nmore lines")
        return super().training_step(batch, index)


class Ends(L.Callback):
    """Asks for the end after six steps."""

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        trainer.should_stop = trainer.global_step == 6


class Hurries(L.Callback):
    """Makes it late after four steps."""

    def __init__(self, timer: Timer) -> None:
        self.timer = timer

    def on_train_batch_end(self, trainer: L.Trainer, *_: Any) -> None:
        self.timer._offset = 3600.0 * (trainer.global_step >= 4)


def test_how_the_training_ended_is_written(tmp_path: Path) -> None:
    def fit(name: str, module: Model, *more: L.Callback, **options: Any) -> dict[str, str]:
        logger = CSVLogger(tmp_path, name=name, version="")
        callbacks = [EntropyMonitor(every_n_steps=1), LogitHealthMonitor(every_n_steps=1), *more]
        run = trainer(*callbacks, logger=logger, **options)
        try:
            run.fit(module, loader(5))
        except FloatingPointError:
            with (tmp_path / name / "metrics.csv").open() as file:  # nothing measured is lost
                rows = [row for row in csv.DictReader(file) if row.get("entropy/mean")]
            assert [int(row["step"]) for row in rows] == list(range(11))
        return ending(tmp_path / name)

    died = fit("died", Dies(), max_epochs=8)
    assert died == {
        "reason": "FloatingPointError: 0 / 0", "step": "11", "planned_steps": "40", "epoch": "2",
        "num_parameters": "15", "rows_seen": "88",
    }  # fmt: skip
    whole = fit("whole", Model(), max_steps=12)
    assert (whole["reason"], whole["step"], whole["planned_steps"]) == ("finished", "12", "12")
    early = fit("early", Model(), Ends(), max_epochs=3)
    assert (early["reason"], early["step"], early["planned_steps"]) == ("stopped early", "6", "15")
    late = fit("late", Model(), timer := Timer({"hours": 1}), Hurries(timer), max_epochs=50)
    assert late["reason"] == "out of time"
    endless = fit("endless", Model(), Ends(), max_epochs=-1)
    assert (endless["reason"], endless["planned_steps"]) == ("stopped early", "")


# ------------------------------------------------------------------------ on an accelerator
class Late:
    """An event that is over when told so."""

    over = False

    def query(self) -> bool:
        return self.over

    def synchronize(self) -> None:
        self.over = True


def test_numbers_are_written_when_they_arrive_each_with_its_step() -> None:
    """A device that is slow, by events of our own; the queue is the one of an accelerator."""
    logger, writer = Lines(), Writer()
    run = trainer(logger=logger, max_epochs=1)
    run.fit(Model(), loader(1))
    loop = run.fit_loop.epoch_loop
    logger.lines.clear()
    events: list[Late] = []

    class Slow(DeferredReads[Any]):
        def put(self, label: Any, values: Tensor) -> None:
            super().put(label, values)
            events.append(Late())
            self.queue[-1] = self.queue[-1]._replace(event=events[-1])

    writer._waiting = Slow(capacity=4)
    for step in range(3):
        loop._batches_that_stepped = 10 + step
        writer.add(run, {"a": torch.tensor(float(step)), "b": step})
    assert logger.lines == []  # nothing has waited for the device
    assert float(run.callback_metrics["a"]) == 2
    loop._batches_that_stepped = 99
    events[0].over = events[2].over = True
    writer.write_arrived(run)
    assert logger.of("a") == [(10, 0.0)]  # in order: what came before is written before
    events[1].over = True
    writer.write_arrived(run)
    writer.write_arrived(run)
    assert logger.of("a") == [(10, 0.0), (11, 1.0), (12, 2.0)]
    for step in range(4):  # one more than may wait
        loop._batches_that_stepped = 100 + step
        writer.add(run, {"a": torch.tensor(0.5)})
    assert [step for step, _ in logger.of("a")][3:] == [100, 101, 102, 103]
    writer.add(run, {"a": torch.tensor(0.25)})
    writer.write_all(run)
    assert logger.of("a")[-1][1] == 0.25


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_every_measurement_is_there_at_the_end() -> None:
    logger = Lines()
    module = Model()
    monitors = Stamp(3), EntropyMonitor(every_n_steps=3)
    trainer(*monitors, max_steps=40, logger=logger, accelerator="gpu", devices=1).fit(
        module, loader(20)
    )
    due = list(range(0, 40, 3))
    assert [step for step, _ in logger.of("stamp/total")] == due
    assert [v for _, v in logger.of("stamp/total")] == pytest.approx(
        [module.totals[s] for s in due]
    )
    assert [step for step, _ in logger.of("entropy/mean")] == due


def test_a_monitor_without_a_name_needs_none() -> None:
    class Nameless(Monitor):
        def measure(self, trainer: L.Trainer, module: Any, record: LossRecord) -> None:
            self.publish(trainer, {"x": record.total})

    logger = Lines()
    with warnings.catch_warnings():
        trainer(Nameless(2), Nameless(3), max_steps=4, logger=logger).fit(Model(), loader(4))
    assert [step for step, _ in logger.of("x")] == [0, 0, 2, 3]
