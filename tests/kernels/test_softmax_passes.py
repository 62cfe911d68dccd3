# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two-pass and online softmax, twins and kernels, against torch's softmax in float64."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_losses.kernels.study import softmax_passes as two_pass
from lightning_losses.kernels.triton import row_ops

softmax_passes_triton = pytest.importorskip("lightning_losses.kernels.study.softmax_passes_triton")

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value|divide):RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
Softmax = Callable[[Tensor], Tensor]
KERNELS: dict[str, Softmax] = {
    "two-pass": softmax_passes_triton.two_pass,
    "online": softmax_passes_triton.online,
}
TWINS: dict[str, Softmax] = {"twin two-pass": two_pass.two_pass, "twin online": two_pass.online}
ALL = KERNELS | TWINS


@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(row_ops, "BLOCK", 32)
    monkeypatch.setattr(two_pass, "BLOCK", 32)


def rows(n: int, v: int, size: float = 3.0) -> Tensor:
    g = torch.Generator().manual_seed(n + v)
    return (size * torch.randn(n, v, generator=g)).to(DEVICE)


def worst(found: Tensor, z: Tensor) -> float:
    """Largest relative error of a probability that is not negligible."""
    right = z.double().softmax(1)
    return float(((found.double() - right).abs() / right.clamp(min=1e-6)).max())


# Less than a lane, a block, a ragged end, whole blocks only.
@pytest.mark.parametrize("v", [1, 3, 32, 67, 96])
@pytest.mark.parametrize("name", ALL)
def test_against_float64(name: str, v: int) -> None:
    z = rows(5, v)
    assert worst(ALL[name](z), z) < 2e-6


# exp overflows float32 at 88 and float64 at 709, and underflows at the other end.
@pytest.mark.parametrize("offset", [-3000.0, -200.0, 200.0, 3000.0])
@pytest.mark.parametrize("name", ALL)
def test_nothing_overflows(name: str, offset: float) -> None:
    z = rows(3, 67) + offset
    # The paper's algorithm subtracts no maximum first: it is exact to the spacing of z times e.
    assert worst(ALL[name](z), z) < (2e-6 if "online" in name else 2e-6 + 2 * abs(offset) * 6e-8)


@pytest.mark.parametrize("name", ALL)
def test_masked_classes_and_rows(name: str) -> None:
    z = rows(4, 67)
    z[0, ::2] = -torch.inf
    z[1, :40] = -torch.inf  # all of the first block
    z[2] = -torch.inf
    z[3, 1:] = -torch.inf
    found = ALL[name](z)
    assert worst(found[[0, 1, 3]], z[[0, 1, 3]]) < 2e-6
    assert not found[2].any()
    assert found[3, 0] == 1


@pytest.mark.parametrize("bad", [torch.inf, torch.nan])
@pytest.mark.parametrize("name", ALL)
def test_bad_logits_stay_visible(name: str, bad: float) -> None:
    z = rows(2, 67)
    z[0, 50] = bad
    found = ALL[name](z)
    assert found[0].isnan().any()
    assert worst(found[1:], z[1:]) < 2e-6


@pytest.mark.parametrize("name", ALL)
def test_half_precision_strides_and_no_rows(name: str) -> None:
    z = rows(3, 67).half()
    found = ALL[name](z)
    assert found.dtype == torch.float16
    right = z.double().softmax(1)
    assert ((found.double() - right).abs() <= right * 2**-11 + 2**-25 + 1e-6 * right).all()
    wide = rows(6, 134)[::2, ::2]
    assert worst(ALL[name](wide), wide) < 2e-6
    assert ALL[name](rows(0, 7)).shape == (0, 7)


def test_pairs_are_what_the_paper_says() -> None:
    z = torch.linspace(-300, 300, 1001, dtype=torch.float64)
    m, n = two_pass.pairs(z)
    assert torch.equal(n, n.round())
    assert m.min() >= 0.5**0.5 - 1e-9
    assert m.max() <= 2**0.5 + 1e-9
    torch.testing.assert_close(m.log() + n * torch.tensor(2.0).double().log(), z)


@pytest.mark.slow
def test_the_benchmark_runs_on_a_cpu() -> None:
    script = Path(__file__).parents[2] / "benchmarks" / "softmax_passes.py"
    command = [sys.executable, str(script), "--device", "cpu"]
    result = subprocess.run(command, env=os.environ, capture_output=True, text=True, check=True)
    for name in ("two-pass (C)", "three-pass (C)", "two-pass (twin)", "online (twin)"):
        if "(C)" in name and not shutil.which("cc"):
            continue
        line = next(line for line in result.stdout.splitlines() if line.startswith(name))
        assert float(line.split()[-1]) < 1e-5  # the relative error
