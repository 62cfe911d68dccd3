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

from lightning_losses.metrics.step_radius import secant as secant_module
from lightning_losses.metrics.step_radius.bounds import rho_a, rho_dom, rho_var, spread
from lightning_losses.metrics.step_radius.exact import exact_radius
from lightning_losses.metrics.step_radius.secant import secant
from lightning_losses.softmax import ClassRange, Problem

GOLDEN = json.loads((Path(__file__).parents[1] / "golden" / "radius.json").read_text())["cases"]
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


@pytest.mark.parametrize("case", GOLDEN, ids=[case["name"] for case in GOLDEN])
def test_golden_exact(case: dict[str, Any]) -> None:
    found = float(exact_radius(row(case["z"]), row(case["a"])))
    assert found == pytest.approx(float(case["rho_exact"]), rel=1e-13)


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


@settings(max_examples=15, deadline=None)
@given(ROWS)
def test_exact_radius_is_where_the_first_zero_is(zs: tuple[list[float], list[float]]) -> None:
    z, a = np.array(zs[0]), np.array(zs[1])
    assume(np.ptp(a) > 0.1)
    exact = float(exact_radius(row(z), row(a)))
    assert zeros_within(z, a, 0.99 * exact) == 0
    t = exact * np.exp(2j * np.pi * np.arange(4097) / 4096)
    terms = np.exp(z[:, None] + a[:, None] * t)
    cancelled = np.abs(terms.sum(0)) / np.abs(terms).sum(0)
    assert cancelled.min() < 0.02  # as near to a zero as 4096 points get


def test_exact_radius_of_hard_rows() -> None:
    # A double zero, (1 + e^t)^2, turns the sum by a whole round at once.
    double = exact_radius(row([0, math.log(2), 0]), row([0, 1, 2]))
    assert float(double) == pytest.approx(math.pi, rel=1e-5)
    # Powers of e^t: 1 + e^t + e^2t + e^3t vanishes at the fourth roots of 1 but for 1 itself.
    assert float(exact_radius(row([0] * 4), row(range(4)))) == pytest.approx(math.pi / 2, rel=1e-13)
    masked = exact_radius(row([-math.inf, 3, 0]), row([math.nan, 1, 0]))
    assert float(masked) == pytest.approx(math.hypot(3, math.pi))
    far = exact_radius(row([800, 0, 1]), row([1, 0, 0]))  # behind it, exp is no float64
    assert float(far) == pytest.approx(math.hypot(800 - math.log(1 + math.e), math.pi))
    none = exact_radius(torch.zeros(2, 3), torch.ones(2, 3))
    assert none.tolist() == [math.inf, math.inf]
    assert exact_radius(torch.zeros(0, 3), torch.zeros(0, 3)).shape == (0,)
    assert exact_radius(torch.zeros(1, 0), torch.zeros(1, 0)).tolist() == [math.inf]


def test_exact_radius_says_what_is_wrong() -> None:
    with pytest.raises(ValueError, match=r"must both be \(N, V\)"):
        exact_radius(torch.zeros(3), torch.zeros(3))
    with pytest.raises(ValueError, match="Row 1 has logits or slopes that are not finite"):
        exact_radius(torch.zeros(2, 2), torch.tensor([[0.0, 1.0], [0.0, math.nan]]))


def tilt_by_bisection(z: np.ndarray, a: np.ndarray) -> float:
    """The nearest real t at which the class on top holds half, by looking and halving."""
    top, nearest = z.argmax(), math.inf
    for sign in (1.0, -1.0):

        def holds(u: float, sign: float = sign) -> bool:
            p = np.exp(z + sign * u * a - (z + sign * u * a).max())
            return bool(p[top] > p.sum() / 2)

        low, high = 0.0, 1e-3
        while holds(high) and high < 1e6:
            high *= 1.5
        for _ in range(100):
            middle = (low + high) / 2
            low, high = (middle, high) if holds(middle) else (low, middle)
        nearest = min(nearest, low if high < 1e6 else math.inf)
    return nearest


@settings(max_examples=60, deadline=None)
@given(ROWS)
def test_rho_dom_is_what_it_says(zs: tuple[list[float], list[float]]) -> None:
    z, a = np.array(zs[0]), np.array(zs[1])
    assume(np.ptp(a) > 0.1)
    expected = math.hypot(tilt_by_bisection(z, a), math.pi / np.ptp(a))
    assert float(rho_dom(row(z), row(a))) == pytest.approx(expected, rel=1e-9)
    single = float(rho_dom(row(z).float(), row(a).float()))
    assert single == pytest.approx(expected, rel=1e-4)


def test_rho_dom_counts_classes_that_do_not_rise() -> None:
    # The second class nearly holds half already; the third tips the scales long before it leads.
    u = 5 + math.log(1 - math.exp(-0.01))
    found = float(rho_dom(row([0, -0.01, -5]), row([0, 0, 1])))
    assert found == pytest.approx(math.hypot(u, math.pi), rel=1e-12)


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
    monkeypatch.setattr(secant_module, "ENTRIES", entries)
    old, new = (problem(7, 11, seed, hidden, torch.float64) for seed in (0, 1))
    found = secant(old, new)
    change = logits_by_hand(new) - logits_by_hand(old)
    torch.testing.assert_close(found.spread, change.amax(1) - change.amin(1))
    torch.testing.assert_close(found.size, logits_by_hand(old).abs().amax(1))


# Targets: class indices, distributions, none.
@pytest.mark.parametrize("target", ["index", "distribution", None])
@pytest.mark.parametrize("entries", [1, 21, 1000])
def test_bounds_stream_over_classes(
    entries: int, target: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(secant_module, "ENTRIES", entries)
    old, new = (problem(7, 11, seed, True, torch.float64) for seed in (0, 1))
    z, a = logits_by_hand(old), logits_by_hand(new) - logits_by_hand(old)
    share = torch.softmax(torch.randn(7, 11, dtype=torch.float64), 1)
    if target == "index":
        share = torch.nn.functional.one_hot(torch.arange(7) + 2, 11).double()
    given = {"index": torch.arange(7) + 2, "distribution": share, None: None}[target]
    bounds = secant(old._replace(target=given), new, bounds=True).bounds
    torch.testing.assert_close(bounds.rho_var, rho_var(z, a), rtol=1e-9, atol=0)
    assert float(bounds.rho_dom.min()) == pytest.approx(float(rho_dom(z, a).min()), rel=1e-9)
    if target != "distribution":  # a range of every class; of slices: test_meshes
        ranged = [p._replace(class_range=ClassRange(0, 11, 11)) for p in (old, new)]
        again = secant(ranged[0]._replace(target=given), ranged[1], bounds=True).bounds
        torch.testing.assert_close(tuple(again)[:2], tuple(bounds)[:2])
    slope = ((torch.softmax(z, 1) - share) * a).sum(1)
    if target is None:
        assert bounds.slope is None
    else:
        torch.testing.assert_close(bounds.slope, slope)


def test_the_smallest_rho_dom_is_found_among_many_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    old, new = (problem(300, 5, seed, False, torch.float64) for seed in (0, 1))
    # Confident rows whose rho_dom is far above their rho_a, so that the widest row is not it.
    old = old._replace(softcap=None, temperature=None, logits=8 * old.logits)
    new = new._replace(softcap=None, temperature=None, logits=old.logits + 0.1 * new.logits)
    change = 3 * (new.logits - old.logits)
    every = rho_dom(3 * old.logits, change)
    assert int(every.argmin()) != int(spread(change).argmax())
    bounds = secant(old, new, bounds=True).bounds
    assert float(bounds.rho_dom.min()) == pytest.approx(float(every.min()), rel=1e-9)
    assert int((bounds.rho_dom != math.pi / spread(change)).sum()) < 300  # not all were looked at
    monkeypatch.setattr(secant_module, "SEARCHED", 10)  # two rows
    short = secant(old, new, bounds=True).bounds
    assert (short.rho_dom <= every * (1 + 1e-12)).all()


def test_bounds_of_rows_without_an_answer() -> None:
    def of(*z: float) -> Problem:
        return problem(1, 3, 0, False, torch.float32)._replace(
            logits=torch.tensor([z]),
            temperature=None,
            softcap=None,
            logit_scale=1.0,
            target=torch.tensor([1]),
        )

    inf, nan = math.inf, math.nan
    for after in ((1, nan, 0), (1, 2, -inf), (inf, 2, 0)):  # no step is safe
        bounds = secant(of(1, 2, 0), of(*after), bounds=True).bounds
        assert [float(bounds.rho_dom), float(bounds.rho_var)] == [0.0, 0.0]
    for same in ((1, 2, 0), (1, 2, -inf), (-inf, -inf, -inf)):  # nothing moved
        bounds = secant(of(*same), of(*same), bounds=True).bounds
        assert [float(bounds.rho_dom), float(bounds.rho_var)] == [inf, inf]
        assert float(bounds.slope) == 0.0
    none = problem(0, 3, 0, False, torch.float32)
    assert secant(none, none, bounds=True).bounds.rho_dom.shape == (0,)
    strange = of(1, 2, 0)._replace(target=torch.tensor([7]))  # no class of these
    assert float(secant(strange, of(1, 3, 0), bounds=True).bounds.slope) == 0.0


@pytest.mark.parametrize("bounds", [False, True])
def test_secant_never_holds_all_logits(bounds: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(secant_module, "ENTRIES", 64)
    monkeypatch.setattr(secant_module, "SEARCHED", 200)  # two rows of 100, forth and back
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
        secant(old, new, bounds)
    assert 0 < largest <= (400 if bounds else 64) < 16 * 100


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
