# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tables beside the metrics, and what a monitor does when it has something to say."""

from __future__ import annotations

import csv
import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from lightning_losses.callbacks.base.alerts import announce, check_action
from lightning_losses.callbacks.base.csv_table import write_table


def test_a_table_replaces_what_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.csv"
    write_table(path, ("stage", "epoch", "x"), [{"stage": "a,b", "epoch": 0, "x": 1.0}], key=2)
    write_table(path, ("stage", "epoch", "x"), [{"stage": "a,b", "epoch": 1, "x": 2.0}], key=2)
    again = [{"stage": "a,b", "epoch": 1, "x": float("nan")}]
    write_table(path, ("stage", "epoch", "x"), again, key=2)
    assert path.read_text() == 'stage,epoch,x\n"a,b",0,1\n"a,b",1,\n'


# Empty; not UTF-8; other columns; a quote that never ends; NUL; a row cut off in the middle.
@pytest.mark.parametrize(
    ("content", "kept", "whole"),
    [
        (b"", 0, True),
        (b"\xff\xfe\x00bad\n1,2\n", 0, False),
        (b"stage,epoch,lower\nval,9,0.1\n", 0, False),
        (b'stage,epoch,x\nval,9,"unclosed\nval,8,1\n', 1, True),
        (b"stage,epoch,x\nv\xe4l,9,1\n", 1, True),
        (b"stage,epoch,x\nval,8,1\nval,9", 1, False),
    ],
)
def test_a_damaged_table_keeps_what_can_be_read(
    tmp_path: Path, content: bytes, kept: int, whole: bool
) -> None:
    path = tmp_path / "t.csv"
    path.write_bytes(content)
    rows = [{"stage": "né", "epoch": 0, "x": 1.0}]
    assert write_table(path, ("stage", "epoch", "x"), rows, key=2) == whole
    assert len(_rows(path)) == 2 + kept
    assert _rows(path)[-1] == ["né", "0", "1"]
    write_table(path, ("stage", "epoch", "x"), rows, key=2, keep=False)
    assert _rows(path) == [["stage", "epoch", "x"], ["né", "0", "1"]]
    assert os.listdir(tmp_path) == ["t.csv"]


def _rows(path: Path) -> list[list[str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_a_write_that_fails_leaves_the_table_as_it_was(
    tmp_path: Path,
) -> None:
    path = tmp_path / "t.csv"
    write_table(path, ("epoch", "x"), [{"epoch": 0, "x": 1.0}], key=1)
    before = path.read_text()
    with pytest.raises(UnicodeError):  # half written by then
        write_table(path, ("epoch", "x"), [{"epoch": 1, "x": "\udcff"}], key=1)
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(OSError, match="folder"):
        write_table(tmp_path / "folder.csv", ("epoch", "x"), [{"epoch": 0, "x": 1.0}], key=1)
    assert path.read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["folder.csv", "t.csv"]


class Recorder(WandbLogger):
    """A logger of the right type that keeps the alerts."""

    def __init__(self) -> None:
        self.alerts: list[dict[str, Any]] = []

    @property
    def experiment(self) -> Any:
        return SimpleNamespace(alert=lambda **alert: self.alerts.append(alert))


@pytest.mark.parametrize("action", ["log", "warn", "alert", "stop"])
def test_each_action_includes_those_before_it(
    action: Any, recwarn: pytest.WarningsRecorder
) -> None:
    logger = Recorder()
    trainer: Any = SimpleNamespace(loggers=[logger], is_global_zero=True, should_stop=False)
    announce(trainer, action, "t" * 80, "what to do")
    assert [str(w.message) for w in recwarn] == ([] if action == "log" else ["what to do"])
    levels = {"alert": ["WARN"], "stop": ["ERROR"]}.get(action, [])
    assert [alert["level"] for alert in logger.alerts] == levels
    assert all(len(alert["title"]) < 64 for alert in logger.alerts)
    assert trainer.should_stop == (action == "stop")


def test_an_unknown_action_names_the_known_ones() -> None:
    with pytest.raises(ValueError, match="log, warn, alert, stop"):
        check_action("on_critical", "shout")
