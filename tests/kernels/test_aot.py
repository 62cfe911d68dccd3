# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Representative Triton kernels compile for four GPUs without spilling, and use their instructions.

`benchmarks/aot.py` builds every configuration; these are the ones that failed on the way: the tiles
with the most registers (by pointer and by descriptor), the heaviest epilogue of each kind, float32
split into TF32, an odd D.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from lightning_losses.kernels.triton.tiles import COPY_ENGINE

pytest.importorskip("triton")

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arch", "kernels"),
    [
        ("sm_80", "lean forward fp32 all;lean backward bf16 options all"),
        ("sm_90", "lean forward bf16 +entropy;lean backward bf16 all;row_statistics bf16 all"),
        ("sm_100", "lean forward bf16 +entropy;lean backward bf16 options all;spread bf16 options"),
        ("gfx942", "lean forward bf16 options all;row_gradient bf16 all options"),
    ],
)
def test_builds_without_spilling(arch: str, kernels: str, tmp_path: Path) -> None:
    # Not in this process: under the interpreter there is nothing to compile.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    table = tmp_path / "table.json"
    command = [sys.executable, str(ROOT / "benchmarks" / "aot.py"), "--only", arch]
    command += ["--kernel", kernels, "--json", str(table)]
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    rows = json.loads(table.read_text())
    assert len(rows) >= len(kernels.split(";"))
    for row in rows:
        assert row["faults"] == []
        # What would not be noticed if the tool changed its output: zeros.
        assert 16 <= row["regs"] <= 256
        assert row["instructions"] > 100
        assert row["name"].startswith("row") or row["mma"] > 0
        assert row.get("tma", 0) > 0 or "TMA" not in row["name"]
    assert any("tma" in row for row in rows) == (arch in COPY_ENGINE)


@pytest.mark.slow
def test_an_unknown_configuration_is_a_failure() -> None:
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(ROOT / "benchmarks" / "aot.py"), "--kernel", "no such"]
    assert subprocess.run(command, env=environment, capture_output=True, check=False).returncode
