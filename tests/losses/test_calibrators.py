# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibrators against grid searches, scikit-learn and what each promises."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from torch import Tensor
from torch.nn import functional

from lightning_losses.calibrators import (
    Calibrator,
    CorrectnessAware,
    DirichletScaling,
    HistogramBinning,
    Isotonic,
    TemperatureScaling,
    VectorScaling,
)
from lightning_losses.calibrators.correctness_aware import correctness_loss, temperature
from lightning_losses.calibrators.histogram import bin_means
from lightning_losses.calibrators.isotonic import interpolate, pool_adjacent_violators

ALL = [
    TemperatureScaling,
    VectorScaling,
    DirichletScaling,
    Isotonic,
    HistogramBinning,
    CorrectnessAware,
]


def rows(n: int = 400, classes: int = 4, heat: float = 3.0, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits `heat` times what the labels were drawn from."""
    g = torch.Generator().manual_seed(seed)
    true = 1.5 * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return heat * true, torch.multinomial(true.softmax(1), 1, generator=g)[:, 0]


def nll(p: Tensor, target: Tensor) -> float:
    return float(functional.nll_loss(p.double().log(), target))


# ------------------------------------------------------------------ temperature
@pytest.mark.parametrize("heat", [0.02, 0.5, 1.0, 4.0, 300.0])
def test_temperature_is_the_optimum(heat: float) -> None:
    # Far outside, inside and at 1; the best T is `heat` times the one of the plain logits.
    z, y = rows(heat=heat)
    found = float(TemperatureScaling().fit(z, y).temperature)
    grid = [nll((z / (found * f)).softmax(1), y) for f in (0.999, 1.0, 1.001)]
    assert grid[1] < min(grid[0], grid[2])
    t = torch.tensor(found, dtype=torch.float64, requires_grad=True)
    (slope,) = torch.autograd.grad(functional.cross_entropy(z / t, y), t)
    assert abs(float(slope) * found) < 1e-9
    assert found == pytest.approx(
        heat * float(TemperatureScaling().fit(*rows(heat=1.0)).temperature)
    )


@settings(max_examples=40, deadline=None)
@given(st.integers(2, 5), st.integers(1, 12), st.integers(0, 10**6), st.sampled_from([0.0, 1, 50]))
def test_temperature_never_leaves_its_range(classes: int, n: int, seed: int, heat: float) -> None:
    z, y = rows(n, classes, heat, seed)  # few rows: often all right, or all wrong
    found = TemperatureScaling().fit(z, y)
    assert 1e-3 * (1 - 1e-9) <= float(found.temperature) <= 1e3 * (1 + 1e-9)
    assert found(z).isfinite().all()
    assert nll(found(z), y) <= nll(z.softmax(1), y) + 1e-9


def test_a_temperature_that_does_not_matter_is_one() -> None:
    found = TemperatureScaling().fit(torch.full((5, 3), 7.0), torch.tensor([0, 1, 2, 0, 1]))
    assert found.temperature == 1


# ------------------------------------------------------------------ isotonic, histogram
# Ties, one row, all equal: where pooling has to average before it pools.
scores = st.lists(st.tuples(st.integers(0, 8), st.booleans()), min_size=1, max_size=40)


@settings(max_examples=80, deadline=None)
@given(scores)
def test_isotonic_equals_scikit_learn(pairs: list[tuple[int, bool]]) -> None:
    x = np.array([a / 8 for a, _ in pairs])
    y = np.array([float(b) for _, b in pairs])
    grid = np.linspace(-0.1, 1.1, 41)
    wanted = IsotonicRegression(out_of_bounds="clip").fit(x, y).predict(grid)
    knots = pool_adjacent_violators(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(interpolate(torch.tensor(grid), *knots), wanted, atol=1e-12)


def test_bin_means_equal_a_loop() -> None:
    g = torch.Generator().manual_seed(1)
    p = torch.rand(50, 2, generator=g, dtype=torch.float64) * 0.8
    p[0, 0], p[1, 0] = 1.0, 0.3  # the closed end, and an inner edge
    hit = torch.rand(50, 2, generator=g) < p
    found = bin_means(p, hit, 10)
    for k in range(2):
        for b in range(10):
            held = [h for c, h in zip(p[:, k].tolist(), hit[:, k].tolist(), strict=True)
                    if max(j for j in range(10) if c >= j / 10) == b]  # fmt: skip
            wanted = sum(held) / len(held) if held else (b + 0.5) / 10
            assert float(found[k, b]) == pytest.approx(wanted)


@pytest.mark.parametrize("kind", [Isotonic, HistogramBinning])
def test_no_possible_class_becomes_impossible(kind: type[Calibrator]) -> None:
    z, y = rows(40)
    p = kind().fit(z, y)(z)
    assert p.min() > 0  # or one row elsewhere would cost infinity
    assert float(p.min()) < 0.05
    z[:, 1] = -torch.inf
    assert kind().fit(z, y.clamp(max=0))(z)[:, 1].max() == 0


# ------------------------------------------------------------------ the others
def test_vector_finds_factors_and_offsets_of_classes() -> None:
    # Logits with a wrong offset and scale a class, which temperature cannot mend.
    true, y = rows(4000, 3, heat=1.0)
    z = true * torch.tensor([1.0, 2.0, 0.5]) + torch.tensor([0.0, 1.0, -1.0])
    best = nll(true.softmax(1), y)
    vector = VectorScaling().fit(z, y)
    assert nll(TemperatureScaling().fit(z, y)(z), y) > best + 0.05
    assert nll(vector(z), y) < best + 2e-3
    # Stationary: the gradient of what is minimised is 0.
    w, b = (t.clone().requires_grad_() for t in (vector.weight, vector.bias))
    prior = ((w - 1).square().sum() + b.square().sum()) / (2 * len(z))
    for gradient in torch.autograd.grad(functional.cross_entropy(z * w + b, y) + prior, (w, b)):
        assert gradient.abs().max() < 1e-5


def test_dirichlet_finds_classes_that_speak_for_one_another() -> None:
    # What the map can express: log-probabilities mixed by a matrix. Vector scaling cannot.
    g = torch.Generator().manual_seed(2)
    z = 2 * torch.randn(4000, 3, generator=g, dtype=torch.float64)
    mixing = torch.tensor([[0.8, 0.6, 0.0], [0.0, 0.8, 0.6], [0.6, 0.0, 0.4]]).double()
    true = z.log_softmax(1) @ mixing.t() + torch.tensor([0.0, 0.5, 0.0])
    y = torch.multinomial(true.softmax(1), 1, generator=g)[:, 0]
    best, matrix = nll(true.softmax(1), y), DirichletScaling().fit(z, y)
    assert nll(VectorScaling().fit(z, y)(z), y) > best + 0.05
    assert nll(matrix(z), y) < best + 5e-3
    off = matrix.weight - torch.diag(matrix.weight.diag())
    stiff = DirichletScaling(off_diagonal=1e3).fit(z, y).weight
    assert (stiff - torch.diag(stiff.diag())).abs().max() < 0.01 < off.abs().max()


def test_a_class_without_rows_stays_finite() -> None:
    z, y = rows(100, 4)
    for kind in ALL:
        found = kind().fit(z, y.clamp(max=2))
        assert found(z).isfinite().all(), kind
        assert all(value.isfinite().all() for value in found.state_dict().values()), kind


def test_correctness_aware_is_the_better_at_what_it_is_fitted_to() -> None:
    z, y = rows(1000)
    z[::2] *= 3  # half of the rows need another temperature
    right = z.argmax(1) == y
    plain, aware = TemperatureScaling().fit(z, y), CorrectnessAware().fit(z, y)
    losses = [float(correctness_loss(c(z).amax(1), right)) for c in (plain, aware)]
    assert losses[1] < losses[0] - 1e-3
    assert torch.equal(aware(z).argmax(1), z.argmax(1))
    t = temperature(z, **aware.state_dict())
    assert 0.1 <= float(t.min()) < float(t.max()) <= 10
    for same in (torch.ones(4).bool(), torch.zeros(4).bool()):  # where the source gives NaN
        assert correctness_loss(torch.full((4,), 0.9), same).isfinite()


# ------------------------------------------------------------------ what all promise
@pytest.mark.parametrize("kind", ALL)
def test_every_calibrator(kind: type[Calibrator]) -> None:
    z, y = rows(600)
    with torch.inference_mode():  # as Lightning validates
        random = torch.get_rng_state()
        fitted = kind().fit(z[:400], y[:400])
        p = fitted(z[400:])
        assert torch.equal(random, torch.get_rng_state())
    assert p.dtype == torch.float64
    assert torch.allclose(p.sum(1), torch.ones(200).double())
    assert p.min() >= 0
    # The logits are three times too large: held-out likelihood gains a lot.
    assert nll(p, y[400:]) < nll(z[400:].softmax(1), y[400:]) - 0.2
    assert not any(True for _ in fitted.parameters())
    # Again, in other shapes and dtypes.
    assert torch.equal(kind().fit(z[:400], y[:400])(z[400:]), p)
    torch.testing.assert_close(fitted(z[400:].view(20, 10, 4)), p.view(20, 10, 4))
    strided = z[400:].t().contiguous().t()
    assert not strided.is_contiguous()
    torch.testing.assert_close(fitted(strided), p)
    half = fitted(z[400:].half())
    assert half.dtype == torch.float32
    assert fitted(z[:0]).shape == (0, 4)
    # A new one takes the state, alone and inside another module; casts do not round it.
    copy, outer = kind(), torch.nn.Sequential(kind())
    assert not copy.fitted
    copy.load_state_dict(fitted.state_dict())
    outer.load_state_dict(torch.nn.Sequential(fitted).state_dict())
    outer.half()
    for other in (copy, outer[0]):
        assert other.fitted
        assert torch.equal(other(z[400:]), p)


@pytest.mark.parametrize("kind", ALL)
def test_rows_that_cannot_be_used_are_left_out(kind: type[Calibrator]) -> None:
    z, y = rows(200)
    bad_z, bad_y = torch.cat([z, z[:4]]), torch.cat([y, y[:4]])
    bad_z[-1, 0], bad_z[-2, 1] = torch.nan, torch.inf
    bad_y[-3], bad_y[-4] = -100, 9
    torch.testing.assert_close(kind().fit(bad_z, bad_y)(z), kind().fit(z, y)(z))
    masked = z.clone()
    masked[:, 3] = -torch.inf
    p = kind().fit(masked, y.clamp(max=2))(masked)
    assert p.isfinite().all()
    assert p[:, 3].max() < 1e-6


def test_errors_say_what_to_write() -> None:
    z, y = rows(10)
    with pytest.raises(RuntimeError, match=r"call fit"):
        TemperatureScaling()(z)
    with pytest.raises(ValueError, match=r"no usable row out of 10"):
        TemperatureScaling().fit(z, torch.full((10,), -100))
    with pytest.raises(ValueError, match=r"\(10, 4\) and \(9,\)"):
        VectorScaling().fit(z, y[:9])
    many: dict[Any, int] = {DirichletScaling: 1001, Isotonic: 101}
    for kind, classes in many.items():
        with pytest.raises(ValueError, match=f"found {classes} classes"):
            kind().fit(torch.zeros(2, classes), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="bins=0"):
        HistogramBinning(0)
    with pytest.raises(ValueError, match="at least one row"):
        pool_adjacent_violators(z[:0, 0], z[:0, 0])
    assert math.isclose(float(TemperatureScaling().fit(z[:1], y[:1])(z[:1]).sum()), 1)
