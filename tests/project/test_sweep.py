# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""examples/sweep.py: a study over terms and weights resumes, prunes, and survives NaN."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path
from typing import Any

import pytest
import torch

optuna = pytest.importorskip("optuna", reason="needs the extra 'sweep'")
EXAMPLES = Path(__file__).parents[2] / "examples"


@pytest.fixture
def sweep(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(EXAMPLES))
    spec = importlib.util.spec_from_file_location("sweep", EXAMPLES / "sweep.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    threads = torch.get_num_threads()
    yield module
    torch.set_num_threads(threads)


@pytest.mark.slow
def test_a_study_resumes_and_a_bad_trial_is_no_end(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = ["loss=[ce],[ce,opl]", "loss.opl.weight=0.01..1", "task.lr=1e-4..1e-2"]
    told += ["trainer.max_epochs=1", "+trainer.limit_train_batches=3", f"--out={tmp_path}"]
    first = sweep.main([*told, "--trials=3"]).trials
    assert [one.state.name for one in first] == ["COMPLETE"] * 3
    for one in first:  # a weight is asked for where there is the term
        assert ("loss.opl.weight" in one.params) == ("opl" in one.params["loss"])
    real = sweep.asked
    monkeypatch.setattr(sweep, "asked", lambda *args: [*real(*args), "task.lr=1e30"])
    second = sweep.main([*told, "--trials=4"]).trials
    monkeypatch.setattr(sweep, "asked", real)
    third = sweep.main([*told, "--trials=5"]).trials
    states = [one.state.name for one in third]
    assert states == ["COMPLETE"] * 3 + ["PRUNED", "COMPLETE"]
    assert all(math.isnan(value) for value in second[3].intermediate_values.values())
    assert second[:3] == third[:3] == first
    rates = [one.params["task.lr"] for one in third]
    assert len(set(rates)) == 5  # a sampler of the same seed would have drawn the same
    # One died before it logged anything.
    assert "4 runs compared" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(sweep.main([*told, "--trials=5"]).trials) == 5  # nothing is left to do


@pytest.mark.slow
def test_a_trial_behind_the_others_is_stopped(
    sweep: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = sweep.asked

    def asked(trial: Any, *rest: Any) -> list[str]:  # the sixth learns nothing
        return [*real(trial, *rest), f"task.lr={1e-2 if trial.number < 5 else 1e-9}"]

    monkeypatch.setattr(sweep, "asked", asked)
    told = ["seed=0", "trainer.max_epochs=4", "+trainer.limit_train_batches=4"]
    trials = sweep.main([*told, f"--out={tmp_path}", "--trials=6"]).trials
    assert [one.state.name for one in trials] == ["COMPLETE"] * 5 + ["PRUNED"]
    assert [len(one.intermediate_values) for one in trials] == [4] * 5 + [3]


def test_what_is_asked_for(sweep: Any) -> None:
    assert sweep.choices("[ce],[ce,opl],{a:1,b:2}") == ["[ce]", "[ce,opl]", "{a:1,b:2}"]
    assert sweep.choices("0.5") == ["0.5"]
