# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the README and the pages behind it show runs as written: app, snippets, names."""

from __future__ import annotations

import csv
import re
import subprocess
import sys
import textwrap
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_losses import LossMixin, build_objective

ROOT = Path(__file__).parents[2]
#: The README and the pages that go on where it ends.
README = "\n".join(
    (ROOT / name).read_text() for name in ("README.md", "docs/training_step.md", "docs/hydra.md")
)


def fenced(language: str, first: str) -> str:
    """The only block of a language that begins so."""
    blocks = re.findall(rf"```{language}\n(.*?)```", README, re.DOTALL)
    (block,) = [block for block in blocks if block.startswith(first)]
    return str(block)


def indented(first: str) -> str:
    """The lines of a snippet from this one on."""
    lines = README[README.index(f"    {first}") :].splitlines()
    count = next(i for i, line in enumerate(lines) if not line.startswith("    "))
    return textwrap.dedent("\n".join(lines[:count]))


def test_the_readers_own_app_sweeps_and_keeps_the_metrics_of_every_job(tmp_path: Path) -> None:
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf" / "train.yaml").write_text(fenced("yaml", "defaults:"))
    (tmp_path / "train.py").write_text(fenced("python", "import hydra"))
    jobs = tmp_path / "jobs"
    overrides = ["loss=[ce],[ce,opl]", "logger=[csv,wandb]", f"hydra.sweep.dir={jobs}"]
    overrides += ["trainer.max_epochs=1", "+trainer.log_every_n_steps=20"]
    overrides += ["callbacks=[entropy]", "callbacks.entropy.every_n_steps=13"]
    done = subprocess.run(
        [sys.executable, "train.py", "-m", *overrides],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-2000:]
    columns = []
    for job in ("0", "1"):
        with (jobs / job / "csv" / "metrics.csv").open() as file:
            rows = list(csv.DictReader(file))
        assert [float(row["train/loss"]) > 0 for row in rows if row["train/loss"]] == [True, True]
        measured = [int(row["step"]) for row in rows if row["entropy/mean"]]
        assert measured == [0, 13, 26, 39]  # of 40 steps, whatever Lightning's cadence
        columns.append(set(rows[0]))
        with (jobs / job / "csv" / "ended.csv").open() as file:
            (end,) = csv.DictReader(file)
        assert (end["reason"], end["step"], end["planned_steps"]) == ("finished", "40", "40")
        # Weights & Biases keeps one run a process, unless each job ends its own.
        assert len(list((jobs / job).glob("wandb/offline-run-*"))) == 1
    assert "train/loss/opl" not in columns[0]
    assert "train/loss/opl" in columns[1]
    assert not (tmp_path / "csv").exists()


@pytest.mark.parametrize(
    "snippet",
    [
        "return self.compute_loss(hidden=h",
        'self.loss = build_objective(["focal", "dice_ce"])',
        'self.loss = build_objective("multi_similarity")',
    ],
)
def test_snippets(snippet: str) -> None:
    torch.manual_seed(0)
    embed = torch.nn.Linear(5, 4)
    module: Any = type("Module", (LossMixin,), {})()
    module.__dict__ |= {
        "_trainer": None,
        "_fabric": None,
        "_current_fx_name": None,
        "device": "cpu",
        "loss": build_objective("ce"),
        "lm_head": torch.nn.Linear(4, 9, bias=False),
        "net": torch.nn.Conv2d(1, 3, 1),
        "embed": embed,
    }
    names = {
        "build_objective": build_objective,
        "torch": torch,
        "h": torch.randn(2, 6, 4),
        "tokens": torch.randint(9, (2, 6)),
        "image": torch.randn(2, 1, 4, 4),
        "label": torch.randint(3, (2, 4, 4)),
        "view1": torch.randn(6, 5),
        "view2": torch.randn(6, 5),
    }
    source = "def step(self):\n" + textwrap.indent(indented(snippet), "    ")
    exec(source, names)
    step: Any = names["step"]
    total = step(module)
    assert total.isfinite()
    assert total > 0
    total.backward()


def test_a_reader_that_has_seen_enough_is_no_error() -> None:
    command = [sys.executable, "-m", "lightning_losses", "list"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 0
