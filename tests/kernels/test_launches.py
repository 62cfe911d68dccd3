# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a GPU would be asked to launch, recorded without one; see `benchmarks/gpu_launches.py`."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton")

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "gpu_launches.py"


def launches(*arguments: str) -> subprocess.CompletedProcess[str]:
    # Not in this process: under the interpreter nothing is typed, and bfloat16 is refused.
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"}
    command = [sys.executable, str(SCRIPT), *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)


@pytest.mark.slow
@pytest.mark.parametrize("arch", ["sm_80", "sm_90", "sm_100"])
def test_every_mode_launches_what_it_needs(arch: str) -> None:
    """And the smallest kernel compiles so; the large ones are `test_aot`'s."""
    compiled = arch == "sm_90"
    done = launches(arch, *(["--compile", "target_logits"] if compiled else []))
    assert done.returncode == 0, done.stdout + done.stderr
    lines = done.stdout.splitlines()
    assert sum(line.startswith("host") for line in lines) == 14 + 2 * compiled
    (words,) = (line.split() for line in lines if line.startswith(f"{arch}: "))
    assert int(words[1]) >= 30  # "sm_90: 57 launches, 22 by descriptor"
    assert (int(words[3]) >= 8) == (arch != "sm_80")
    built = [line for line in lines if "registers" in line]
    assert (len(built) >= 3) == compiled
    assert all(" 0 B of stack" in line for line in built)
