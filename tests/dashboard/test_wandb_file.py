# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""An offline Weights & Biases run is read back record by record, whole, cut off or damaged."""

from __future__ import annotations

import os
import struct
import time
import zlib
from pathlib import Path

import pytest

wandb = pytest.importorskip("wandb")

from lightning_losses.dashboard.runs.find import find_runs  # noqa: E402
from lightning_losses.dashboard.runs.wandb_log import BLOCK, read_payloads, read_wandb_file  # noqa: E402

LONG = "ü" * 100_000  # 200 kB: a record of several blocks


@pytest.fixture(scope="module")
def offline(tmp_path_factory):
    """A finished offline run with what a training logs; the environment is left as it was."""
    before = os.environ.get("WANDB_MODE")
    settings = wandb.Settings(silent=True, console="off", x_disable_meta=True, x_disable_stats=True)
    folder = tmp_path_factory.mktemp("offline")
    run = wandb.init(mode="offline", dir=folder, project="p", name="naïve", settings=settings)
    run.config.update({"lr": 0.1, "notes": LONG})
    run.define_metric("entropy/*", step_metric="trainer/global_step", summary="min,last")
    for step in range(50):
        row = {"trainer/global_step": 10 * step, "epoch": step // 10, "train/loss": 5 - step / 10}
        run.log(row | {"entropy/mean": float("nan") if step == 7 else 2.0})
    columns = ["stage", "epoch", "lower", "upper", "count", "confidence", "accuracy"]
    for epoch in (0, 1):
        table = wandb.Table(columns=columns, data=[["val", epoch, 0.5, 1.0, 10, 0.75, 0.5]])
        run.log({"calibration/reliability": table, "trainer/global_step": 100 * epoch})
    run.alert("entropy collapsed", "lower the learning rate")
    path = run.settings.sync_file
    run.finish()
    assert os.environ.get("WANDB_MODE") == before
    deadline = time.monotonic() + 20  # finish returns before everything is on disk
    while not read_wandb_file(path).exited:
        assert time.monotonic() < deadline, "no exit record after 20 seconds"
        time.sleep(0.05)
    return Path(path)


def test_every_record_comes_back(offline):
    found = read_wandb_file(offline)
    assert found.name == "naïve"
    assert found.config["lr"] == 0.1
    assert found.config["notes"] == LONG
    rows = [row for row in found.history if "train/loss" in row]
    assert [row["trainer/global_step"] for row in rows] == [10 * step for step in range(50)]
    assert [row["train/loss"] for row in rows] == [5 - step / 10 for step in range(50)]
    assert found.alerts == [("entropy collapsed", "lower the learning rate")]
    (metric,) = [one for one in found.metrics if one["name"] == "entropy/*"]
    assert metric["step_metric"] == "trainer/global_step"
    assert set(metric["summary"]) == {"min", "last"}
    assert found.exited
    assert found.notes == []


@pytest.mark.parametrize("what", ["file", "folder", "parent"])
def test_it_becomes_a_run(offline, what):
    place = {"file": offline, "folder": offline.parent, "parent": offline.parents[2]}[what]
    (run,) = find_runs([str(place)])
    assert run.name == "naïve"
    assert run.epochs == 5
    assert run.series["train/loss"].steps[:3].tolist() == [0, 10, 20]
    assert run.series["entropy/mean"].not_finite.tolist() == [70]
    assert len(run.series["entropy/mean"].values) == 49
    rows = run.tables["reliability"]
    assert [(row["stage"], row["epoch"], row["count"]) for row in rows] == [
        ("val", 0, 10),
        ("val", 1, 10),
    ]
    assert run.notes == ["alert: entropy collapsed. lower the learning rate"]


def test_a_file_cut_off_gives_what_came_before(offline, tmp_path):
    data = offline.read_bytes()
    whole, _ = read_payloads(data, "x")
    assert len(data) > 4 * BLOCK  # or no record would cross a block
    counts = []
    # Inside the header of a chunk, inside data, inside the long record, and at block borders.
    for end in (7, 10, BLOCK, BLOCK + 3, 3 * BLOCK + 1, len(data) - 1000, len(data) - 1):
        payloads, notes = read_payloads(data[:end], "x")
        assert payloads == whole[: len(payloads)]
        assert notes == [] if end == 7 else "ends in the middle of a record" in notes[0]
        counts.append(len(payloads))
    assert counts == sorted(counts)
    assert counts[-1] == len(whole) - 1
    path = tmp_path / "run-cut.wandb"
    path.write_bytes(data[: len(data) - 1000])
    found = read_wandb_file(path)
    assert not found.exited
    assert any("no exit was recorded" in note for note in found.notes)
    assert found.history


def test_damage_is_noticed(offline):
    data = bytearray(offline.read_bytes())
    whole, _ = read_payloads(bytes(data), "x")
    data[len(data) // 2] ^= 1
    payloads, notes = read_payloads(bytes(data), "x")
    assert payloads == whole[: len(payloads)]
    assert len(payloads) < len(whole)
    assert "damaged at byte" in notes[0]


def test_a_block_with_no_room_for_a_chunk_is_padded():
    """Written here by hand: the first record leaves 5 bytes of its block."""

    def chunk(body: bytes) -> bytes:
        return struct.pack("<IHB", zlib.crc32(b"\x01" + body), len(body), 1) + body

    first = b"a" * (BLOCK - 7 - 7 - 5)
    data = struct.pack("<4sHB", b":W&B", 0xBEE1, 0) + chunk(first) + b"\0" * 5 + chunk(b"b")
    assert read_payloads(data, "x") == ([first, b"b"], [])


@pytest.mark.parametrize("data", [b"", b":W&B", b"step,loss\n0,1\n"])
def test_another_file_is_an_error(tmp_path, data):
    path = tmp_path / "run-x.wandb"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"run-x\.wandb is not a Weights & Biases run file"):
        read_wandb_file(path)


def logged(folder: Path, run_id: str, steps: range, ended: str = "") -> None:
    """An offline run of one loss; the file is whole when this returns."""
    settings = wandb.Settings(silent=True, console="off", x_disable_meta=True, x_disable_stats=True)
    run = wandb.init(mode="offline", dir=folder, project="p", id=run_id, settings=settings)
    run.config.update({"lr": 0.1 if run_id == "one" else 0.2})
    for step in steps:
        run.log({"trainer/global_step": step, "epoch": step // 10, "train/loss": 5 - step / 100})
    if ended:
        run.summary.update({"ended/reason": ended, "ended/step": 40, "ended/planned_steps": 60})
    path = run.settings.sync_file
    run.finish()
    deadline = time.monotonic() + 20
    while not read_wandb_file(path).exited:
        assert time.monotonic() < deadline, "no exit record after 20 seconds"
        time.sleep(0.05)


def test_a_run_resumed_by_its_id_is_one_and_others_are_others(tmp_path):
    logged(tmp_path, "one", range(30))
    time.sleep(1.1)  # folders are named by the second
    logged(tmp_path, "one", range(20, 40), ended="out of time")
    logged(tmp_path, "two", range(10))
    one, two = find_runs([str(tmp_path)])
    assert one.series["train/loss"].steps.tolist() == list(range(40))
    assert one.resumed == [20]
    assert one.config["lr"] == 0.1
    assert one.ended[:3] == ("out of time", 40, 60)
    assert len(two.series["train/loss"].steps) == 10
    assert two.ended.reason == "exited"
    assert two.about["duration"].endswith(" s")
    assert len(two.clock.seconds)


def test_json_without_end_is_a_value_not_logged(tmp_path):
    from lightning_losses.dashboard.runs.wandb_log import pairs

    class Item:
        key, nested_key, value_json = "x", (), "[" * 100_000

    assert pairs([Item]) == {}
