# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Runs are found and joined as they were trained, and nothing but a run's own files is read."""

from __future__ import annotations

import csv
import math
import os
import time
from pathlib import Path
from typing import Any

import lightning.pytorch as L
import numpy as np
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger
from torch.utils.data import DataLoader, TensorDataset

from lightning_losses import LossMixin, build_objective

pytest.importorskip("polars")

from lightning_losses.__main__ import main
from lightning_losses.dashboard.charts.curves import POINTS, thin
from lightning_losses.dashboard.report.write import write_report
from lightning_losses.dashboard.runs.csv_run import MOMENTS, read_csv, read_table
from lightning_losses.dashboard.runs.find import find_runs
from lightning_losses.dashboard.runs.run import log_of, series_of, trainings
from lightning_losses.dashboard.runs.wandb_run import logged_tables, split


def write(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    names = list(dict.fromkeys(name for row in rows for name in row))
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return path


def steps(start: int, stop: int, value: float, stride: int = 1) -> list[dict[str, Any]]:
    return [
        {"epoch": step // 10, "step": step, "train/loss": value}
        for step in range(start, stop, stride)
    ]


# ---------------------------------------------------------------- what was trained


class Small(LossMixin, L.LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.net = torch.nn.Linear(4, 3)
        self.loss = build_objective("ce")

    def training_step(self, batch: Any, _: int) -> torch.Tensor:
        x, y = batch
        return self.compute_loss(logits=self.net(x), target=y)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


def test_a_training_that_lightning_resumed_is_one_run(tmp_path: Path) -> None:
    x = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x[:, :3].argmax(1)), batch_size=4)

    def fit(epochs: int, checkpoint: str | None = None) -> L.Trainer:
        trainer = L.Trainer(
            max_epochs=epochs,
            accelerator="cpu",
            logger=CSVLogger(tmp_path, name="lightning_logs"),
            log_every_n_steps=1,
            enable_progress_bar=False,
            enable_model_summary=False,
        )
        trainer.fit(Small(), loader, ckpt_path=checkpoint)
        return trainer

    first = fit(2)
    fit(4, first.checkpoint_callback.best_model_path)
    fit(1)  # another training of its own
    resumed, other = find_runs([str(tmp_path)])
    assert resumed.name == "version_0 to version_1"
    assert resumed.series["train/loss"].steps.tolist() == list(range(40))
    assert resumed.epochs == 4
    assert any("joined: 2 parts of one resumed training" in note for note in resumed.notes)
    assert other.name == "version_2"
    assert other.series["train/loss"].steps.tolist() == list(range(10))


@pytest.mark.parametrize(
    ("second", "runs", "last"),
    [
        (steps(30, 60, 2.0), 1, 60),  # goes on where the first was cut off
        (steps(20, 60, 2.0), 1, 60),  # from a checkpoint before that: 20 to 29 were run twice
        (steps(0, 60, 2.0), 2, 30),  # another training
        (steps(4, 60, 2.0, 5), 2, 30),  # the same, logged at every fifth step
        (steps(500, 560, 2.0), 2, 30),  # goes on from something that is not here
    ],
)
def test_versions(tmp_path: Path, second: list[dict[str, Any]], runs: int, last: int) -> None:
    write(tmp_path / "lightning_logs/version_9/metrics.csv", steps(0, 30, 1.0))
    # 10 comes after 9, whatever their letters say.
    write(tmp_path / "lightning_logs/version_10/metrics.csv", second)
    found = find_runs([str(tmp_path)])
    assert len(found) == runs
    loss = found[0].series["train/loss"]
    assert loss.steps.tolist() == list(range(last))
    again = loss.steps >= second[0]["step"]
    assert set(loss.values[again]) == ({2.0} if runs == 1 else {1.0} if again.any() else set())


def test_several_trainings_in_one_log() -> None:
    """As the jobs of a sweep leave them in a W&B run that nobody finished; the second resumed."""
    rows = steps(0, 20, 1.0) + steps(0, 20, 2.0) + steps(15, 40, 3.0)
    # A monitor's value that was written late, at its own step, is no new beginning.
    rows.insert(12, {"step": 3, "entropy/mean": 0.5})
    log = log_of(rows)
    parts = trainings(log)
    assert [len(one) for one in parts] == [1, 2]
    first, second = (series_of(log, one) for one in parts)
    assert first["train/loss"].values.tolist() == [1.0] * 20
    assert second["train/loss"].values.tolist() == [2.0] * 15 + [3.0] * 25
    assert first["entropy/mean"].steps.tolist() == [3.0]
    whole = find_like(rows)
    assert [run.name for run in whole] == ["sweep, training 1", "sweep, training 2"]
    assert "call wandb.finish() at the end of each job" in whole[0].notes[0]
    assert whole[1].resumed == [15.0]


def test_values_of_validations_that_come_late_begin_nothing() -> None:
    """Without a train/loss: the loss of training tells where a run is, not the longest column."""
    rows: list[dict[str, Any]] = [{"step": at, "epoch": 0, "train_loss": 1.0} for at in range(20)]
    rows += [{"step": at, "epoch": 0, "val_loss": 1.0} for at in (9, 19)]
    assert [len(one) for one in trainings(log_of(rows))] == [1]
    only = [{"step": at, "epoch": 0, "acc": 1.0} for at in (0, 1, 2, 0, 1, 2)]
    assert [len(one) for one in trainings(log_of(only))] == [1, 1]


def find_like(rows: list[dict[str, Any]]) -> list[Any]:
    """The runs of a W&B history."""
    from lightning_losses.dashboard.runs.run import Run

    return split(rows, Run("sweep", {}, {}, []))


def test_epochs_and_seconds_of_a_step() -> None:
    """10 steps an epoch and 2 s a step; the process was down for an hour after step 19."""
    rows = [
        {
            "trainer/global_step": at,
            "epoch": at // 10,
            "train/loss": 1.0,
            "_timestamp": 1e9 + 2 * at,
        }
        for at in range(20)
    ]
    rows += [
        {
            **row,
            "_timestamp": row["_timestamp"] + 3600,
            "trainer/global_step": at,
            "epoch": at // 10,
        }
        for at, row in zip(range(15, 35), rows, strict=True)
    ]
    (run,) = find_like(rows)
    clock = run.clock
    assert run.epochs == 4
    assert np.interp([5, 10, 25], clock.steps, clock.epochs) == pytest.approx(
        [0.5, 1, 2.5], abs=0.01
    )
    seconds = np.interp([0, 10, 14], clock.steps, clock.seconds)
    assert seconds == pytest.approx([0, 20, 28], abs=0.5)
    assert clock.seconds[-1] < 100


def test_how_it_ended_is_read_from_beside_the_metrics(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", steps(0, 10, 1.0))
    row = {"reason": "exception: ValueError", "step": 9, "planned_steps": 40, "epoch": 0}
    write(tmp_path / "ended.csv", [row])
    (run,) = find_runs([str(tmp_path)])
    assert run.ended is not None
    assert run.ended[:5] == ("exception: ValueError", 9.0, 40.0, 0.0, "ended.csv")
    assert all(np.isnan(run.ended[5:]))  # a record of before they were written
    write(tmp_path / "ended.csv", [row | {"num_parameters": 30, "rows_seen": 90}])
    (run,) = find_runs([str(tmp_path)])
    assert run.ended is not None
    assert run.ended[5:] == (30.0, 90.0)
    assert run.tables == {}


def test_the_job_of_a_sweep_that_logged_nothing_is_not_forgotten(tmp_path: Path) -> None:
    for job in range(3):
        hydra = tmp_path / str(job) / ".hydra"
        hydra.mkdir(parents=True)
        (hydra / "overrides.yaml").write_text(f"- loss=[l{job}]\n")
        (hydra / "config.yaml").write_text(f"lr: {0.1 * (job + 1)}\ntrainer:\n  max_epochs: 4\n")
        if job != 1:
            write(tmp_path / str(job) / "csv" / "metrics.csv", steps(0, 10, 1.0))
    runs = find_runs([str(tmp_path)])
    assert [run.name for run in runs] == ["loss=[l0]", "loss=[l1]", "loss=[l2]"]
    assert "nothing was logged" in runs[1].notes[0]
    html = write_report([tmp_path]).read_text(encoding="utf-8").replace("<wbr>", "")
    assert "nothing was logged" in html.lower()
    # The setting in which they differ is a column; the one in which they do not is none.
    assert "<th>lr</th>" in html
    assert "<th>trainer.max_epochs</th>" not in html


def test_a_job_whose_file_cannot_be_read_costs_the_others_nothing(tmp_path: Path) -> None:
    for job in range(2):
        (tmp_path / str(job) / ".hydra").mkdir(parents=True)
    (tmp_path / "0" / "csv" / "metrics.csv").mkdir(parents=True)  # a folder of that name
    write(tmp_path / "1" / "csv" / "metrics.csv", steps(0, 10, 1.0))
    broken, good = find_runs([str(tmp_path)])
    assert "no run that can be read" in broken.notes[0]
    assert good.series["train/loss"].last == 1.0


def test_jobs_that_have_versions_are_jobs(tmp_path: Path) -> None:
    for job in (0, 1):
        (tmp_path / str(job) / ".hydra").mkdir(parents=True)
        write(tmp_path / str(job) / "version_0" / "metrics.csv", steps(0, 10, job))
    runs = find_runs([str(tmp_path)])
    assert [run.name for run in runs] == ["0", "1"]
    assert [run.series["train/loss"].last for run in runs] == [0, 1]


def test_a_place_that_was_typed_and_is_no_run_is_an_error_among_others_too(tmp_path: Path) -> None:
    write(tmp_path / "good" / "metrics.csv", steps(0, 10, 1.0))
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="empty holds no run"):
        find_runs([str(tmp_path / "good"), str(tmp_path / "empty")])


# ---------------------------------------------------------------- long runs


def test_a_long_table_is_cut_to_what_a_slider_can_show(tmp_path: Path) -> None:
    path = write(tmp_path / "t.csv", [{"step": s, "layer": "a", "x": s} for s in range(1000)])
    rows, notes = read_table(path)
    assert len(rows) == MOMENTS
    assert rows[0]["step"] == 0
    assert rows[-1]["step"] == 999
    assert notes == [f"t.csv: {MOMENTS} of 1,000 steps are shown"]


@pytest.mark.parametrize("count", [POINTS, POINTS + 1, 12_345, 200_000])
def test_a_thinned_curve_keeps_both_ends_of_every_bucket(count: int) -> None:
    generator = np.random.default_rng(count)
    at, values = np.arange(count, dtype=float), generator.standard_normal(count)
    up, down = generator.choice(count, 2, replace=False)
    values[up], values[down] = 50.0, -50.0
    thinned = thin(at, values)
    assert len(thinned["x"]) <= POINTS
    assert thinned["x"] == sorted(thinned["x"])
    assert (up, 50) in zip(thinned["x"], thinned["y"], strict=True)
    assert (down, -50) in zip(thinned["x"], thinned["y"], strict=True)
    if count > POINTS:  # the slow way, bucket by bucket
        size = math.ceil(count / (POINTS // 2))
        means = [values[s : s + size].mean() for s in range(0, count, size)]
        assert thinned["mean"][1] == pytest.approx(means, rel=1e-4, abs=1e-5)


def test_twenty_thousand_rows_take_moments(tmp_path: Path) -> None:
    """benchmarks/report_speed.py has the figure; this only sees a return to rows as dicts."""
    names = [f"own/{at}" for at in range(20)]
    lines = [",".join(["step", *names])]
    lines += [f"{step}," + ",".join(["1.25"] * 20) for step in range(20_000)]
    (tmp_path / "metrics.csv").write_text("\n".join([*lines, ""]))
    before = time.process_time()
    (run,) = find_runs([str(tmp_path)])
    assert time.process_time() - before < 2.5  # a tenth of it here; dicts took 1.8 s and more
    assert len(run.series) == 20


# ---------------------------------------------------------------- what is no run, or not ours


def test_csv_cells(tmp_path: Path) -> None:
    """As csv.reader has them: quotes, ends of lines in cells, blank lines, cells too many."""
    path = tmp_path / "a.csv"
    path.write_text('step,a,b\n\n0,1,"x, y"\n1,2,"p\nq"\n2,3\n3,4,5,6\n4,nan,-inf\n')
    frame, notes = read_csv(path, numbers=False)
    assert frame is not None
    with path.open(newline="") as file:
        rows = [tuple(row) for row in csv.reader(file) if len(row) == 3][1:]
    assert [tuple(cell or "" for cell in row) for row in frame.rows()] == rows
    assert notes == ["2 lines of a.csv have too few or too many cells"]
    path.write_text("step,a\r\n0,1\r\n\r\n1,nan\r\n2,\r\n3,4,5\r\n")
    frame, notes = read_csv(path)
    assert frame is not None
    assert [str(row) for row in frame.rows()] == ["(0.0, 1.0)", "(1.0, nan)", "(2.0, None)"]
    assert notes == ["1 lines of a.csv have too few or too many cells"]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("notes.txt", "hello", "notes.txt is no run: pass the metrics.csv"),
        ("other.csv", "name,age\na,3\n", "other.csv has no column step"),
        ("run-x.wandb", "hello", "not a Weights & Biases run file"),
    ],
)
def test_a_file_that_is_no_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, said: str
) -> None:
    (tmp_path / name).write_text(text)
    assert main(["report", str(tmp_path / name)]) == 2
    assert said in capsys.readouterr().err


def test_pipes_do_not_hang(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert main(["report", str(pipe)]) == 2
    assert "it is a pipe, a socket or a device" in capsys.readouterr().err
    run = tmp_path / "run"
    run.mkdir()
    os.mkfifo(run / "metrics.csv")
    assert main(["report", str(run)]) == 2
    assert "it is a pipe" in capsys.readouterr().err
    # Beside good metrics it is a note; and what stands where the report goes is replaced.
    good = tmp_path / "good"
    write(good / "metrics.csv", steps(0, 4, 1.0))
    os.mkfifo(good / "reliability.csv")
    os.mkfifo(good / "hparams.yaml")
    (good / "report").mkdir()
    os.mkfifo(good / "report" / "report.html")
    html = write_report([good]).read_text(encoding="utf-8")
    assert "reliability.csv was not read: it is a pipe" in html
    assert "hparams.yaml was not read: it is a pipe" in html


def test_links_out_of_the_run_are_not_followed(tmp_path: Path) -> None:
    secret = tmp_path / "secret.csv"
    secret.write_text("step,password\n0,12345.678\n1,12345.678\n")
    run = tmp_path / "run"
    write(run / "metrics.csv", steps(0, 4, 1.0))
    (run / "table.csv").symlink_to(secret)
    (run / "loop.csv").symlink_to(run / "loop.csv")
    (run / "hparams.yaml").symlink_to(secret)
    (run / "mine.csv").symlink_to(run / "metrics.csv")  # within the run is no harm
    html = write_report([run]).read_text(encoding="utf-8")
    assert "12345" not in html
    assert "table.csv was not read: it is a link out of the run" in html
    assert "loop.csv" in html
    other = tmp_path / "other"
    other.mkdir()
    (other / "metrics.csv").symlink_to(secret)
    with pytest.raises(ValueError, match="link out of the run's folder"):
        find_runs([str(other)])
    # The place that was typed may itself be a link.
    (tmp_path / "latest").symlink_to(run)
    assert len(find_runs([str(tmp_path / "latest")])[0].series) == 1


@pytest.mark.parametrize("path", ["../../secret.json", "/etc/passwd", "link.json"])
def test_tables_that_leave_the_files_of_a_wandb_run(tmp_path: Path, path: str) -> None:
    from lightning_losses.dashboard.runs.files import read_bytes

    files = tmp_path / "run" / "files"
    files.mkdir(parents=True)
    (tmp_path / "secret.json").write_text('{"columns": ["a"], "data": [[42]]}')
    (files / "link.json").symlink_to(tmp_path / "secret.json")

    def load(name: str) -> str:
        data, why = read_bytes(files / name, files)
        if data is None:
            raise ValueError(why[0])
        return data.decode()

    row = {"t_table._type": "table-file", "t_table.path": path}
    tables, notes = logged_tables([row], load)
    assert tables == {}
    assert "out of the run's folder" in notes[0]


def test_deeply_nested_files(tmp_path: Path) -> None:
    write(tmp_path / "metrics.csv", steps(0, 4, 1.0))
    (tmp_path / "hparams.yaml").write_text("a: " + "[" * 50_000)
    hydra = tmp_path / ".hydra"
    hydra.mkdir()
    (hydra / "config.yaml").write_text("a: !!python/object:os.system {}\n")
    (hydra / "overrides.yaml").write_text("- [\n")
    (run,) = find_runs([str(tmp_path)])
    assert "hparams.yaml was not read: it is nested too deeply" in run.notes
    assert any("config.yaml could not be read" in note for note in run.notes)
    row = {"t_table._type": "table-file", "t_table.path": "x"}
    tables, notes = logged_tables([row], lambda _: "[" * 100_000)
    assert tables == {}
    assert "RecursionError" in notes[0]


@pytest.mark.parametrize("what", ["file", "folder"])
def test_an_out_that_cannot_be_written(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], what: str
) -> None:
    write(tmp_path / "metrics.csv", steps(0, 4, 1.0))
    out = tmp_path / "out"
    if what == "file":
        out.write_text("")
    else:  # where the page should go there is a folder
        (out / "report.html").mkdir(parents=True)
    assert main(["report", str(tmp_path), "--out", str(out)]) == 2
    assert f"cannot be written to {out}" in capsys.readouterr().err
    assert [path.name for path in tmp_path.rglob(".report.html.*")] == []
