# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The spread of a change of logits against torch's forward mode on whole float64 logits."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_losses.kernels.eager import spread
from lightning_losses.kernels.eager.spread import Direction, Spread
from lightning_losses.kernels.logits import materialise
from lightning_losses.kernels.problem import Problem
from lightning_losses.kernels.triton import tiles
from lightning_losses.softmax import ClassRange, logit_spread, make_problem

triton_spread = pytest.importorskip("lightning_losses.kernels.triton.spread")

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
DEVICE = "cuda" if torch.cuda.is_available() else "cpu"
TWINS = {"torch": spread.spread, "triton": triton_spread.spread}


# Blocks far below the sizes tested: D = 40 is one and a half blocks deep, 37 classes are ragged in
# blocks of 16, in spans and in the twin's pieces.
@pytest.fixture(autouse=True)
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    tile = tiles.Tile(rows=16, classes=16, depth=32, warps=4, stages=2)
    monkeypatch.setattr(tiles, "spread_tile", lambda *_: tile)
    monkeypatch.setattr(tiles, "span_classes", lambda *_: 32)
    monkeypatch.setattr(spread, "ENTRIES", 7 * 19)


def case(
    n: int = 19, d: int = 40, v: int = 37, dtype: torch.dtype = torch.float32, **options: Any
) -> tuple[Problem, Direction]:
    g = torch.Generator().manual_seed(n + v)
    shapes = ((n, d), (v, d), (v,))
    h, w, b, dh, dw, db = (
        (torch.randn(shape, generator=g) / scale).to(DEVICE, dtype)
        for scale in (3, 10)
        for shape in shapes
    )
    options = {"head_bias": b} | options
    direction = Direction(dh, dw, db if options["head_bias"] is not None else None)
    return make_problem(hidden=h, head_weight=w, **options), direction


def truth(problem: Problem, direction: Direction) -> Spread:
    """By torch's forward mode, whole and in float64, one row at a time."""
    names = [name for name in Direction._fields if getattr(problem, name) is not None]
    at = tuple(getattr(problem, name).double() for name in names)
    step = [getattr(direction, name) for name in names]
    along = tuple(
        torch.zeros_like(x) if dx is None else dx.double() for x, dx in zip(at, step, strict=True)
    )
    temperature = None if problem.temperature is None else problem.temperature.double()

    def logits(*tensors: Tensor) -> Tensor:
        named = dict(zip(names, tensors, strict=True))
        return materialise(problem._replace(**named, temperature=temperature))

    z, change = torch.func.jvp(logits, at, along)
    rows: list[list[float]] = [[], [], [], []]
    for i in range(len(z)):
        keep = z[i] > -1e29
        if not keep.any() or (problem.valid is not None and not problem.valid[i]):
            values = [0.0] * 4
        else:
            a, p = change[i][keep], z[i][keep].softmax(0)
            mean = (p * a).sum()
            values = [a.max(), a.min(), mean, (p * (a - mean).square()).sum()]
        for row, value in zip(rows, values, strict=True):
            row.append(float(value))
    return Spread(*(torch.tensor(row, dtype=torch.float64, device=DEVICE) for row in rows))


def close(found: Spread, right: Spread, tolerance: float) -> None:
    for name, a, b in zip(Spread._fields, found, right, strict=True):
        assert a.shape == b.shape
        size = b.abs().max().clamp(min=1e-30) if b.numel() else 1.0
        assert not a.numel() or (a.double() - b).abs().max() / size <= tolerance, name


TEMPERATURE = torch.linspace(0.5, 2, 19, device=DEVICE)
VALID = torch.arange(19, device=DEVICE) % 3 > 0
OPTIONS: dict[str, dict[str, Any]] = {
    "plain": {"head_bias": None},
    "bias": {},
    "softcap": {"softcap": 1.0, "logit_scale": 1.3},
    "everything": {"softcap": 2.0, "logit_scale": 0.7, "temperature": TEMPERATURE, "valid": VALID},
    "temperature": {"temperature": TEMPERATURE, "head_bias": None},
}


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("twin", TWINS)
def test_against_forward_mode(twin: str, options: dict[str, Any]) -> None:
    problem, direction = case(**options)
    close(TWINS[twin](problem, direction), truth(problem, direction), 3e-6)


@pytest.mark.parametrize("still", Direction._fields)
@pytest.mark.parametrize("twin", TWINS)
def test_what_stays_still(twin: str, still: str) -> None:
    problem, direction = case()
    direction = direction._replace(**{still: None})
    close(TWINS[twin](problem, direction), truth(problem, direction), 3e-6)


@pytest.mark.parametrize("twin", TWINS)
@pytest.mark.parametrize(("n", "v"), [(0, 7), (1, 1), (3, 16), (2, 33)])
def test_degenerate_sizes(twin: str, n: int, v: int) -> None:
    problem, direction = case(n, 5, v)
    close(TWINS[twin](problem, direction), truth(problem, direction), 3e-6)


@pytest.mark.parametrize("twin", TWINS)
def test_masked_classes_do_not_count(twin: str) -> None:
    """Whatever they would do; first a piece of them, then all."""
    problem, direction = case()
    assert problem.head_bias is not None
    assert direction.head_weight is not None
    problem.head_bias[[0, 5, 36]] = -torch.inf
    problem.head_bias[16:32] = -torch.inf
    direction.head_weight[5] = 1e6
    close(TWINS[twin](problem, direction), truth(problem, direction), 3e-6)
    problem.head_bias[:] = -torch.inf
    assert all(not x.any() for x in TWINS[twin](problem, direction))


@pytest.mark.parametrize("twin", TWINS)
def test_a_common_shift_has_no_variance(twin: str) -> None:
    """All logits move by 1000 and a little: sums of squares would lose the little."""
    problem, direction = case(dtype=torch.float32)
    assert direction.head_bias is not None
    shifted = direction._replace(head_bias=direction.head_bias + 1000)
    found, right = TWINS[twin](problem, shifted), truth(problem, direction)
    assert ((found.variance - right.variance).abs() / right.variance).max() < 2e-2
    assert ((found.high - found.low) - (right.high - right.low)).abs().max() < 1e-3


@pytest.mark.parametrize("twin", TWINS)
def test_nan_is_no_small_step(twin: str) -> None:
    problem, direction = case()
    assert direction.hidden is not None
    direction.hidden[4, 2] = torch.nan
    found = TWINS[twin](problem, direction)
    assert found.high[4] == torch.inf
    assert found.low[4] == -torch.inf
    assert found.mean[4].isnan()
    rest = torch.arange(19, device=DEVICE) != 4
    assert all(x[rest].isfinite().all() for x in found)


# Steps of 1e-7, as a learning rate of 1e-4 makes: most would be 0 in float16.
@pytest.mark.parametrize("twin", TWINS)
def test_half_precision(twin: str) -> None:
    problem, direction = case(dtype=torch.float16)
    tiny = Direction(*(None if x is None else x.float() * 1e-7 for x in direction))
    close(TWINS[twin](problem, tiny), truth(problem, tiny), 2e-3)


def test_float64_stays_float64() -> None:
    problem, direction = case(dtype=torch.float64)
    found = spread.spread(problem, direction)
    assert found.high.dtype == torch.float64
    close(found, truth(problem, direction), 1e-12)


@pytest.mark.parametrize("twin", TWINS)
def test_bad_input_says_what_is_wrong(twin: str) -> None:
    problem, direction = case()
    with pytest.raises(ValueError, match=r"head_weight must have its shape \(37, 40\)"):
        TWINS[twin](problem, direction._replace(head_weight=torch.zeros(1, 40)))
    with pytest.raises(ValueError, match="head_bias must have its shape None"):
        TWINS[twin](problem._replace(head_bias=None), direction)
    logits = make_problem(logits=torch.zeros(2, 3))
    with pytest.raises(ValueError, match="from hidden states"):
        TWINS[twin](logits, Direction())


def test_the_front_door_takes_the_kernel_that_is_there() -> None:
    problem, direction = case()
    for kernel in ("auto", "reference", "chunked", "triton"):
        close(logit_spread(problem, direction, kernel), truth(problem, direction), 3e-6)
    with pytest.raises(ValueError, match="without class_range"):
        logit_spread(problem._replace(class_range=ClassRange(0, 37, 40)), direction)
