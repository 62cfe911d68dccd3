# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights that move: values at and between their corners, and what is refused."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lightning_losses.schedules import Constant, Cosine, Linear, Piecewise, as_schedule

finite = st.floats(0, 100)
steps = st.integers(1, 10_000)


def test_linear_corners() -> None:
    schedule = Linear(start=1.0, end=3.0, steps=10, delay=5)
    # Before, at the delay, midway, at the end, after.
    assert [schedule(s) for s in (0, 5, 10, 15, 1000)] == [1, 1, 2, 3, 3]


def test_cosine_corners() -> None:
    schedule = Cosine(start=1.0, end=3.0, steps=10, delay=5)
    assert [schedule(s) for s in (0, 5, 10, 15, 1000)] == pytest.approx([1, 1, 2, 3, 3])
    # A quarter of the way: 0.5 (1 - cos(pi / 4)) of the rise.
    quarter = Cosine(steps=4)(1)
    assert quarter == pytest.approx(0.5 * (1 - math.sqrt(0.5)))


@given(finite, finite, steps, st.integers(0, 100), st.integers(0, 20_000))
def test_ramps_stay_between_their_ends(a: float, b: float, n: int, delay: int, step: int) -> None:
    for kind in (Linear, Cosine):
        value = kind(a, b, n, delay)(step)
        assert min(a, b) - 1e-9 <= value <= max(a, b) + 1e-9
        later = kind(a, b, n, delay)(step + 1)
        assert (later - value) * (b - a) >= -1e-9  # never backwards
        assert kind(a, b, n, delay)(delay + n) == pytest.approx(b)


def test_piecewise_and_constant() -> None:
    schedule = Piecewise(boundaries=[2, 4], values=[1.0, 0.5, 0])
    assert [schedule(s) for s in range(6)] == [1, 1, 0.5, 0.5, 0, 0]
    assert Piecewise([], [2.0])(100) == 2
    assert Constant(3)(10**9) == 3
    assert isinstance(Constant(3)(0), float)


@pytest.mark.parametrize(
    "schedule", [Constant(2.0), Linear(0, 2, 7), Cosine(0, 2, 7), Piecewise((1,), (0.0, 2.0))]
)
def test_schedules_pickle_compare_and_print(schedule: Any) -> None:
    assert pickle.loads(pickle.dumps(schedule)) == schedule
    assert type(schedule).__name__ in repr(schedule)
    assert as_schedule(schedule) is schedule


def test_as_schedule() -> None:
    assert as_schedule(0.3) == Constant(0.3)
    assert as_schedule(2)(0) == 2.0
    ramp = as_schedule({"start": 0, "end": 0.3, "steps": 1000})
    assert ramp == Linear(0, 0.3, 1000)
    mine = lambda step: 1 / (1 + step)  # noqa: E731
    assert as_schedule(mine) is mine


@pytest.mark.parametrize(
    ("weight", "error", "message"),
    [
        (-0.1, ValueError, "at least 0, found -0.1.*minus it"),
        (math.nan, ValueError, "at least 0, found nan"),
        (
            {"begin": 0, "end": 1},
            ValueError,
            r"'delay', 'end', 'start', 'steps'.*found \['begin'\]",
        ),
        ({"end": 1, "steps": 0}, ValueError, "steps must be positive, got 0"),
        ("high", TypeError, "found 'high'"),
        (True, TypeError, "found True"),
        (None, TypeError, "found None"),
    ],
)
def test_bad_weights(weight: Any, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=f"(?s){message}"):
        as_schedule(weight)


@pytest.mark.parametrize(
    ("boundaries", "values"), [([1], [0.0]), ([5, 2], [0.0, 1.0, 2.0]), ([], [])]
)
def test_bad_pieces(boundaries: list[int], values: list[float]) -> None:
    with pytest.raises(ValueError, match="one more value than boundaries"):
        Piecewise(boundaries, values)


def test_steps_must_be_positive() -> None:
    for kind in (Linear, Cosine):
        with pytest.raises(ValueError, match="steps must be positive"):
            kind(steps=0)
