# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`benchmarks/alarms.py` runs, and can fail: two of its trainings, and one that is judged wrong."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

BENCHMARKS = Path(__file__).resolve().parents[2] / "benchmarks"


@pytest.mark.filterwarnings("ignore")
def test_alarms_of_a_dead_and_of_a_healthy_training(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    bench: Any = __import__("alarms")
    # 40 steps end by NaN; 60 steps are too few for most monitors, and take a second.
    dead = replace(bench.SICK["digits_nan_input"], since=40, done=(40, bench.spoil, 1))
    calm = replace(bench.HEALTHY["digits_adamw_0.001"], steps=60)
    monkeypatch.setattr(bench, "SICK", {"dead": dead})
    monkeypatch.setattr(bench, "HEALTHY", {"calm": calm})
    assert bench.main([]) == 0
    assert "2 trainings: 0 false, 0 missed" in capsys.readouterr().out
    # The same training, were it healthy, and were something else due in it.
    monkeypatch.setattr(bench, "SICK", {"dead": replace(dead, due=("spike",))})
    assert bench.main(["--only", "dead"]) == 1
    assert "1 trainings: 1 false, 1 missed" in capsys.readouterr().out
