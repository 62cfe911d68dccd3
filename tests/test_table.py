# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tables beside the metrics, and what a monitor does when it has something to say."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lightning.pytorch.loggers import WandbLogger

from lightning_losses.callbacks.announce import announce, check_action
from lightning_losses.callbacks.table import write_table


def test_a_table_replaces_what_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "new" / "t.csv"
    write_table(path, ("stage", "epoch", "x"), [{"stage": "a,b", "epoch": 0, "x": 1.0}], key=2)
    write_table(path, ("stage", "epoch", "x"), [{"stage": "a,b", "epoch": 1, "x": 2.0}], key=2)
    again = [{"stage": "a,b", "epoch": 1, "x": float("nan")}]
    write_table(path, ("stage", "epoch", "x"), again, key=2)
    assert path.read_text() == 'stage,epoch,x\n"a,b",0,1\n"a,b",1,\n'


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
