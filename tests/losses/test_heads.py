# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Heads against loops that are obviously right, at their edges and in half precision."""

from __future__ import annotations

import cmath
import math
from typing import Any, get_args

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_losses.heads import (
    ArcFaceHead,
    CosFaceHead,
    FourierHead,
    HarmonicDistanceHead,
    HarmonicHead,
    HyperbolicMLR,
    NormalizedHead,
    distances,
)
from lightning_losses.heads.harmonic_distance import Distance

NAMES = get_args(Distance)
Row = list[float]


def every_head() -> dict[str, nn.Module]:
    torch.manual_seed(0)
    return {
        "harmonic": HarmonicHead(4, 3),
        "normalized": NormalizedHead(4, 3),
        "learnable": NormalizedHead(4, 3, learnable_scale=True),
        "cosface": CosFaceHead(4, 3),
        "arcface": ArcFaceHead(4, 3),
        "fourier": FourierHead(4, 3, num_frequencies=5),
        "hyperbolic": HyperbolicMLR(4, 3),
        **{name: HarmonicDistanceHead(4, 3, name) for name in NAMES},
    }


@pytest.mark.parametrize("name", every_head())
def test_shapes_dtypes_and_gradients(name: str) -> None:
    head = every_head()[name]
    x = torch.randn(2, 5, 4)
    z = head(x)
    assert z.shape == (2, 5, 3)
    assert head(x[:0]).shape == (0, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(x.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, head(x.bfloat16().float()))
    assert head.double()(x.double()).dtype == torch.float64
    y = 0.5 * torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (y,))
    F.cross_entropy(head(y), torch.tensor([0, 1, 2])).backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in head.parameters())


# -- distances -------------------------------------------------------------------------------------


def soft(v: float) -> float:
    return 1 / (1 + math.exp(-(v - 0.5) / 0.1))


def distance_by_loop(name: str, x: Row, w: Row, eps: float) -> float:
    d = [abs(a - b) for a, b in zip(x, w, strict=True)]
    both = [abs(a) + abs(b) for a, b in zip(x, w, strict=True)]
    if name == "cosine":
        dot = sum(a * b for a, b in zip(x, w, strict=True))
        return 1 - dot / (math.hypot(*x) * math.hypot(*w)) + eps
    if name in ("euclidean", "mahalanobis"):  # the precision begins at 1
        return math.sqrt(sum(v * v for v in d) + eps)
    if name == "minkowski":
        return (sum((v + eps) ** 1.5 for v in d) + eps) ** (1 / 1.5) + eps
    if name == "hamming":
        return sum(abs(soft(a) - soft(b)) for a, b in zip(x, w, strict=True)) + eps
    return {
        "manhattan": sum(d),
        "chebyshev": max(d),
        "canberra": sum(v / (b + eps) for v, b in zip(d, both, strict=True)),
        "bray_curtis": sum(d) / (sum(both) + eps),
    }[name] + eps


@pytest.mark.parametrize("name", NAMES)
def test_distances_by_loop(name: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(1)
    head = HarmonicDistanceHead(4, 5, name, exponent=3.0).double()
    x = torch.randn(2, 3, 4, dtype=torch.float64)
    z = head(x)
    for i in range(2):
        for j in range(3):
            for k in range(5):
                d = distance_by_loop(name, x[i, j].tolist(), head.weight[k].tolist(), 1e-4)
                assert z[i, j, k].item() == pytest.approx(-3 * math.log(d), rel=1e-6, abs=1e-9)
    monkeypatch.setattr(distances, "BLOCK", 48)  # two classes at a time
    torch.testing.assert_close(head(x), z)


@pytest.mark.parametrize("name", NAMES)
def test_distances_at_a_centre(name: Any) -> None:
    """A feature on its class centre: the largest logit, finite gradients, also for zero vectors."""
    head = HarmonicDistanceHead(4, 3, name)
    for x in (head.weight.detach().clone(), torch.zeros(3, 4)):
        x.requires_grad_()
        z = head(x)
        z.logsumexp(-1).sum().backward()
        assert z.isfinite().all()
        assert x.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()
    assert head(head.weight).argmax(-1).tolist() == [0, 1, 2]


def test_number_of_the_card() -> None:
    head = HarmonicDistanceHead(2, 3, "manhattan").double()
    head.weight.data = torch.tensor([[1.0, 1], [0, 0], [-1, 2]], dtype=torch.float64)
    z = head(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert F.cross_entropy(z, torch.tensor([0])).item() == pytest.approx(0.810939, abs=1e-6)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), scale=st.floats(0.5, 50))
def test_harmonic_probabilities_do_not_see_the_scale(seed: int, scale: float) -> None:
    """Distances to the power -n, normalised: a common factor cancels."""
    torch.manual_seed(seed)
    for name in ("euclidean", "manhattan", "chebyshev"):
        head = HarmonicDistanceHead(4, 3, name, exponent=4.0, eps=1e-12).double()  # type: ignore[arg-type]
        x = torch.randn(5, 4, dtype=torch.float64)
        before = head(x).softmax(-1)
        head.weight.data *= scale
        torch.testing.assert_close(head(scale * x).softmax(-1), before, rtol=1e-6, atol=1e-9)


# -- cosines and margins ---------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    margin=st.floats(0.05, 1.0),
    guard=st.booleans(),
    gradient=st.sampled_from(["exact", "straight_through"]),
)
def test_margins_by_loop(seed: int, margin: float, guard: bool, gradient: Any) -> None:
    torch.manual_seed(seed)
    x, y = torch.randn(6, 4, dtype=torch.float64), torch.tensor([0, 1, 2, 0, 1, -1])
    plain = NormalizedHead(4, 3, scale=8.0).double()
    cos = CosFaceHead(4, 3, 8.0, margin).double()
    arc = ArcFaceHead(4, 3, 8.0, margin, gradient, guard).double()
    cos.weight = arc.weight = plain.weight
    z, with_cos, with_arc = plain(x), cos(x, y), arc(x, y)
    for i, row in enumerate(x.tolist()):
        for k, w in enumerate(plain.weight.tolist()):
            c = sum(a * b for a, b in zip(row, w, strict=True)) / (
                math.hypot(*row) * math.hypot(*w)
            )
            assert z[i, k].item() == pytest.approx(8 * c)
            if k != y[i]:
                assert with_cos[i, k].item() == with_arc[i, k].item() == pytest.approx(8 * c)
                continue
            assert with_cos[i, k].item() == pytest.approx(8 * (c - margin))
            angle = math.acos(c)
            turned = math.cos(angle + margin)
            if guard and angle > math.pi - margin:
                turned = c - margin * math.sin(margin)
            assert with_arc[i, k].item() == pytest.approx(8 * turned, rel=1e-6, abs=1e-6)
    torch.testing.assert_close(cos(x), z)  # no target, no margin
    torch.testing.assert_close(arc(x), z)


def test_two_gradients_of_arcface() -> None:
    """Exact: sin(angle + m) / sin(angle) times the other."""
    w = torch.eye(2, dtype=torch.float64)
    angle, m = 0.7, 0.5
    grads = {}
    for gradient in ("exact", "straight_through"):
        head = ArcFaceHead(2, 2, 1.0, m, gradient).double()  # type: ignore[arg-type]
        head.weight.data = w.clone()
        x = torch.tensor(
            [[math.cos(angle), math.sin(angle)]], dtype=torch.float64, requires_grad=True
        )
        grads[gradient] = torch.autograd.grad(head(x, torch.tensor([0]))[0, 0], x)[0]
    ratio = math.sin(angle + m) / math.sin(angle)
    torch.testing.assert_close(grads["exact"], ratio * grads["straight_through"])


@pytest.mark.parametrize("gradient", ["exact", "straight_through"])
def test_arcface_at_its_own_direction(gradient: Any) -> None:
    """acos at 1 has an infinite slope; the official exact gradient is NaN there."""
    head = ArcFaceHead(4, 3, gradient=gradient)
    for x in (head.weight.detach().clone(), -head.weight.detach(), torch.zeros(3, 4)):
        x.requires_grad_()
        F.cross_entropy(head(x, torch.tensor([0, 1, 2])), torch.tensor([0, 1, 2])).backward()
        assert x.grad.isfinite().all()
        assert head.weight.grad.isfinite().all()


def test_floor_of_the_normalised_softmax() -> None:
    """Three directions at 120 degrees are the best there is: the bound of the docstring."""
    angles = [0.0, 2 * math.pi / 3, 4 * math.pi / 3]
    head = NormalizedHead(2, 3, scale=4.0).double()
    head.weight.data = torch.tensor(
        [[math.cos(a), math.sin(a)] for a in angles], dtype=torch.float64
    )
    best = F.cross_entropy(head(head.weight), torch.arange(3)).item()
    assert best == pytest.approx(math.log(1 + 2 * math.exp(-4.0 * 3 / 2)))


# -- Fourier ---------------------------------------------------------------------------------------


def test_fourier_by_loop() -> None:
    torch.manual_seed(0)
    head = FourierHead(3, 7, num_frequencies=4, regularization=0.1).double()
    nn.init.normal_(head.linear.weight)
    nn.init.normal_(head.linear.bias)
    x = torch.randn(5, 3, dtype=torch.float64)
    z = head(x)
    penalties = []
    for i in range(5):
        values = head.linear(x[i]).tolist()
        a = [complex(re, im) for re, im in zip(values[:5], values[5:], strict=True)]
        c = [sum(a[j + k] * a[j].conjugate() for j in range(5 - k)) for k in range(5)]
        pdf = []
        for b in range(7):
            centre = -1 + (2 * b + 1) / 7
            waves = (c[k] / c[0].real * cmath.exp(1j * math.pi * k * centre) for k in range(1, 5))
            pdf.append(0.5 + sum(waves).real)
        for b in range(7):
            assert z[i, b].item() == pytest.approx(math.log(pdf[b] / sum(pdf) + 1e-5))
        penalties.append(sum(2 * math.pi**2 * k**2 * abs(c[k]) ** 2 for k in range(5)))
    assert head.aux_loss is not None
    assert head.aux_loss.item() == pytest.approx(0.1 * 2 * sum(penalties) / 5)
    with torch.no_grad():
        head(x)
    assert head.aux_loss is None


def test_fourier_without_waves_is_uniform() -> None:
    """Only the coefficient 0: C_k = 0 for k >= 1, so all bins are equal."""
    head = FourierHead(2, 6, num_frequencies=3)
    nn.init.zeros_(head.linear.weight)
    nn.init.zeros_(head.linear.bias)
    head.linear.bias.data[0] = 1.0
    z = head(torch.randn(4, 2))
    assert F.cross_entropy(z, torch.tensor([0, 1, 2, 3])).item() == pytest.approx(
        math.log(6), abs=1e-4
    )
    nn.init.zeros_(head.linear.bias)  # all coefficients 0: a quotient of nothing
    assert head(torch.randn(4, 2)).isfinite().all()


# -- hyperbolic ------------------------------------------------------------------------------------


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 1000))
def test_hyperbolic_logits_become_affine(seed: int) -> None:
    """c towards 0: 4 <x - p, a>, whatever the ball."""
    torch.manual_seed(seed)
    head = HyperbolicMLR(3, 2, curvature=1e-8).double()
    x = torch.randn(4, 3, dtype=torch.float64)
    flat = 4 * torch.stack([(x - p) @ a for p, a in zip(head.point, head.normal, strict=True)], 1)
    torch.testing.assert_close(head(x), flat, rtol=1e-4, atol=1e-4)


def test_hyperbolic_at_the_rim_and_at_nothing() -> None:
    head = HyperbolicMLR(3, 2)
    for x in (torch.full((2, 3), 1e4), torch.zeros(2, 3)):
        x.requires_grad_()
        z = head(x)
        z.sum().backward()
        assert z.isfinite().all()
        assert x.grad.isfinite().all()
    nn.init.zeros_(head.normal)
    nn.init.zeros_(head.point)
    z = head(torch.zeros(2, 3))
    z.sum().backward()
    assert z.abs().max() == 0
    assert all(p.grad.isfinite().all() for p in head.parameters())


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: NormalizedHead(2, 2, scale=0.0), "scale must be positive"),
        (lambda: ArcFaceHead(2, 2, gradient="none"), "gradient must be"),
        (lambda: HarmonicDistanceHead(2, 2, "l2"), "Unknown distance 'l2'"),
        (lambda: HarmonicDistanceHead(2, 2, eps=0.0), "eps must be positive"),
        (lambda: HyperbolicMLR(2, 2, 0.0), "curvature must be positive"),
        (lambda: FourierHead(2, 2, 0), "num_frequencies must be at least 1"),
        (lambda: CosFaceHead(2, 2)(torch.zeros(3, 2), torch.zeros(4).long()), "one class a row"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
