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
@pytest.mark.parametrize(("arch", "described"), [("sm_80", 0), ("sm_90", 10), ("sm_100", 10)])
def test_every_mode_launches_what_it_needs(arch: str, described: int) -> None:
    done = launches(arch)
    assert done.returncode == 0, done.stdout + done.stderr
    *steps, last = done.stdout.splitlines()
    assert sum(line.startswith("host") for line in steps) == 18
    words = last.split()  # "sm_90: 57 launches, 22 by descriptor"
    assert int(words[1]) >= 40
    assert int(words[3]) >= described
    assert (int(words[3]) > 0) == (described > 0)


@pytest.mark.slow
def test_launches_compile_for_the_device() -> None:
    """The smallest kernel, with the arguments of real launches; the large ones are `test_aot`'s."""
    done = launches("sm_90", "--compile", "target_logits")
    assert done.returncode == 0, done.stdout + done.stderr
    built = [line for line in done.stdout.splitlines() if "registers" in line]
    assert len(built) >= 3
    assert all(" 0 B of stack" in line for line in built)
