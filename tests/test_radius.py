# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Radius bounds against golden values, a count of zeros in the complex plane, and loops."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lightning_losses.metrics import radius
from lightning_losses.metrics.radius import rho_a, rho_dom, rho_var, secant, spread
from lightning_losses.softmax import Problem

GOLDEN = json.loads((Path(__file__).parent / "golden" / "radius.json").read_text())["cases"]
BOUNDS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {
    "rho_a": lambda z, a: rho_a(a, z),
    "rho_dom": rho_dom,
    "rho_var": rho_var,
}


def row(values: Any) -> Tensor:
    return torch.tensor([[float(v) for v in values]], dtype=torch.float64)


@pytest.mark.parametrize("bound", BOUNDS)
@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden(case: dict[str, Any], bound: str) -> None:
    found = float(BOUNDS[bound](row(case["z"]), row(case["a"])))
    assert found == pytest.approx(float(case[bound]), rel=1e-12)
    assert found <= float(case["rho_exact"]) * (1 + 1e-12)


def zeros_within(z: np.ndarray, a: np.ndarray, size: float) -> int:
    """How often ``sum_k exp(z_k + a_k t)`` winds around 0 on the circle of this radius."""
    t = size * np.exp(2j * np.pi * np.arange(4097) / 4096)
    exponents = z[:, None] + a[:, None] * t
    value = np.exp(exponents - exponents.real.max(0)).sum(0)
    turns = np.angle(value[1:] / value[:-1])
    assert np.abs(turns).max() < 1, "the points are too few to count turns"
    return round(float(turns.sum()) / (2 * np.pi))


# Margins to 12 and slopes to 3: behind larger margins the circle needs more than 4096 points.
ROWS = st.integers(2, 6).flatmap(
    lambda n: st.tuples(
        st.lists(st.floats(-6, 6), min_size=n, max_size=n),
        st.lists(st.floats(-3, 3), min_size=n, max_size=n),
    )
)


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_there_is_no_zero_within_the_bounds(zs: tuple[list[float], list[float]]) -> None:
    z, a = np.array(zs[0]), np.array(zs[1])
    assume(np.ptp(a) > 0.1)
    bounds = [float(f(row(z), row(a))) for f in BOUNDS.values()]
    assert min(bounds) >= bounds[0] * (1 - 1e-15)
    assert zeros_within(z, a, 0.99 * max(bounds)) == 0


def test_the_count_of_zeros_counts() -> None:
    # Two classes: zeros at t = -(z1 - z0 + i pi (2k + 1)) / (a1 - a0), the first two at |t| = pi.
    z, a = np.zeros(2), np.array([0.0, 1.0])
    assert [zeros_within(z, a, r) for r in (3.1, 3.2, 9.5)] == [0, 2, 4]


@settings(max_examples=20, deadline=None)
@given(ROWS, st.floats(-50, 50), st.floats(-9, 9))
def test_shifts_change_nothing_and_scales_scale(
    zs: tuple[list[float], list[float]], shift: float, log_scale: float
) -> None:
    z, a = row(zs[0]), row(zs[1])
    assume(float(spread(a)) > 1e-3)
    scale = 10.0**log_scale
    for f in BOUNDS.values():
        torch.testing.assert_close(f(z + shift, a), f(z, a), rtol=1e-7, atol=0)
        torch.testing.assert_close(f(z, a + shift), f(z, a), rtol=1e-7, atol=0)
        torch.testing.assert_close(f(z, -a), f(z, a), rtol=1e-9, atol=0)
        torch.testing.assert_close(f(z, a * scale) * scale, f(z, a), rtol=1e-9, atol=0)


@pytest.mark.parametrize("bound", BOUNDS)
def test_masked_classes_drop_out(bound: str) -> None:
    z, a = row([3.0, 1.0, -2.0]), row([0.3, -1.0, 0.5])
    hole = row([-math.inf])
    # Whatever the slope of a masked class is, a number or what is left of inf - inf.
    for slope in (0.0, 99.0, math.nan, -math.inf):
        masked = BOUNDS[bound](torch.cat([hole, z], 1), torch.cat([row([slope]), a], 1))
        torch.testing.assert_close(masked, BOUNDS[bound](z, a), rtol=1e-12, atol=0)
    nothing = BOUNDS[bound](row([-math.inf, -math.inf]), row([1.0, 2.0]))
    assert nothing.tolist() == [math.inf]
    one = BOUNDS[bound](row([-math.inf, 1.0]), row([1.0, 2.0]))
    assert one.tolist() == [math.inf]


@pytest.mark.parametrize("bound", BOUNDS)
def test_no_nan_comes_out(bound: str) -> None:
    f = BOUNDS[bound]
    assert f(row([1.0, 2.0]), row([math.nan, 1.0])).tolist() == [0.0]  # no step is safe
    assert f(row([1.0, 2.0]), row([math.inf, 1.0])).tolist() == [0.0]
    assert f(row([1.0]), row([2.0])).tolist() == [math.inf]
    assert f(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    half = f(row([1.0, 2.0]).bfloat16(), row([0.5, 1.0]).bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half.double(), f(row([1.0, 2.0]), row([0.5, 1.0])))


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"must both be \(N, V\)"):
        rho_dom(torch.zeros(2, 3), torch.zeros(3))
    with pytest.raises(ValueError, match="V of at least 1"):
        rho_var(torch.zeros(2, 0), torch.zeros(2, 0))


def test_spread() -> None:
    delta = torch.tensor([[1.0, -2.0, 5.0], [math.nan, 1.0, 1.0]])
    assert spread(delta).tolist() == [7.0, math.inf]
    keep = torch.tensor([[True, True, False], [False, True, True]])
    assert spread(delta, keep).tolist() == [3.0, 0.0]
    assert spread(delta, torch.zeros(2, 3, dtype=torch.bool)).tolist() == [0.0, 0.0]
    assert spread(torch.zeros(2, 0)).tolist() == [0.0, 0.0]
    assert spread(delta[:0]).shape == (0,)


# -------------------------------------------------------------------------------------- the secant
def problem(n: int, v: int, seed: int, hidden: bool, dtype: torch.dtype) -> Problem:
    g = torch.Generator().manual_seed(seed)

    def draw(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=g, dtype=torch.float64).to(dtype)

    return Problem(
        logits=None if hidden else draw(n, v),
        hidden=draw(n, 4) if hidden else None,
        head_weight=draw(v, 4) if hidden else None,
        head_bias=draw(v) if hidden else None,
        target=None,
        valid=None,
        temperature=draw(n).abs() + 0.5,
        softcap=2.0,
        logit_scale=3.0,
    )


def logits_by_hand(p: Problem) -> Tensor:
    z = p.logits
    if z is None:
        z = p.hidden @ p.head_weight.t() + p.head_bias
    return 2.0 * torch.tanh(z * 3.0 / 2.0) / p.temperature[:, None]


# Chunks of 1, 3 (not a divisor of 11), and more classes than there are.
@pytest.mark.parametrize("entries", [1, 21, 1000])
@pytest.mark.parametrize("hidden", [False, True])
def test_secant_streams_over_classes(
    entries: int, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(radius, "ENTRIES", entries)
    old, new = (problem(7, 11, seed, hidden, torch.float64) for seed in (0, 1))
    found = secant(old, new)
    change = logits_by_hand(new) - logits_by_hand(old)
    torch.testing.assert_close(found.spread, change.amax(1) - change.amin(1))
    torch.testing.assert_close(found.size, logits_by_hand(old).abs().amax(1))


def test_secant_never_holds_all_logits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(radius, "ENTRIES", 64)
    largest = 0

    class Sizes(TorchDispatchMode):
        def __torch_dispatch__(self, f: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
            nonlocal largest
            out = f(*args, **(kwargs or {}))
            if isinstance(out, Tensor) and not f.is_view:
                largest = max(largest, out.numel())
            return out

    old, new = (problem(16, 100, seed, True, torch.float32) for seed in (0, 1))
    with Sizes():
        secant(old, new)
    assert 0 < largest <= 64


def test_secant_drops_classes_that_are_masked_on_both_sides() -> None:
    def of(*z: float) -> Problem:
        return problem(1, 3, 0, False, torch.float32)._replace(
            logits=torch.tensor([z]), temperature=None, softcap=None, logit_scale=1.0
        )

    inf = math.inf
    assert secant(of(1, 2, -inf), of(6, 8, -inf)).spread.tolist() == [1.0]
    assert secant(of(1, 2, -inf), of(6, 8, -inf)).size.tolist() == [2.0]
    assert secant(of(1, 2, 0), of(6, 8, -inf)).spread.tolist() == [inf]
    assert secant(of(1, 2, 0), of(6, math.nan, 0)).spread.tolist() == [inf]
    assert secant(of(-inf, -inf, -inf), of(-inf, -inf, -inf)).spread.tolist() == [0.0]


def test_secant_wants_the_same_rows() -> None:
    one, other = (problem(n, 5, 0, False, torch.float32) for n in (2, 3))
    with pytest.raises(ValueError, match=r"were \(2, 5\) before and \(3, 5\) after"):
        secant(one, other)
