# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses against a teacher, against an obvious loop."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.losses import (
    AdaptiveAlphaDivergence,
    CrossEntropy,
    DistilledCrossEntropy,
    FDivergence,
    KnowledgeDistillation,
)
from lightning_losses.losses.distillation.adaptive_alpha import clipped_alpha_divergence

#: The default, where the right one is KL; powers that are clipped, below and above 1; and a small
#: one, whose tangent begins at ratios of exp(+-160).
ALPHAS = [(-1.0, 1.0), (-2.0, 0.5), (-0.5, 3.0), (-0.01, 0.01)]
LOSSES = [*(AdaptiveAlphaDivergence(*a) for a in ALPHAS), DistilledCrossEntropy(0.5, 2.0)]


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=g, dtype=torch.float64)


def objective_of(loss: nn.Module) -> Objective:
    return Objective({"x": loss})


def total(loss: nn.Module, z: Tensor, teacher: Tensor, **more: Any) -> Tensor:
    target = torch.arange(len(z)) % z.shape[1]
    named = {"target": target, "teacher_logits": teacher} | more
    found: Tensor = objective_of(loss)(z, **named).total
    return found


def convex(r: float, alpha: float, clip: float) -> float:
    """f of the alpha family, less what sums to 0; its tangent in r where r^alpha is above clip."""
    if alpha == 1:
        return r * math.log(r)
    scale = alpha * (alpha - 1)
    if r**alpha <= clip:
        return (r**alpha - 1) / scale
    edge = clip ** (1 / alpha)
    slope = edge ** (alpha - 1) / (alpha - 1)
    return (clip - 1) / scale + slope * (r - edge)


def cut(r: float, alpha: float, clip: float) -> float:
    if alpha == 1:
        return r * math.log(r)
    return (min(r**alpha, clip) - 1) / (alpha * (alpha - 1))


# -- adaptive alpha --------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    alphas=st.sampled_from(ALPHAS),
    clip=st.sampled_from([1.5, 5.0]),
    spread=st.floats(0.1, 4),
)
def test_adaptive_alpha_by_loop(
    seed: int, alphas: tuple[float, float], clip: float, spread: float
) -> None:
    """Value; and the authors' gradient, -q rho d log q with rho of clipped ratios."""
    z, teacher = normal(2, 4, 5, seed=seed, scale=spread)
    z.requires_grad_()
    mask = torch.rand(4, generator=torch.Generator().manual_seed(seed)) > 0.3
    p, q, log_q = teacher.softmax(1).tolist(), z.softmax(1).tolist(), z.log_softmax(1)
    expected, surrogate = 0.0, 0 * z.sum()
    for i in range(4):
        if not mask[i]:
            continue
        pairs = [(b, a / b) for a, b in zip(p[i], q[i], strict=True)]
        worth = [sum(b * cut(r, alpha, clip) for b, r in pairs) for alpha in alphas]
        alpha = alphas[0] if worth[0] > worth[1] else alphas[1]
        expected += sum(b * convex(r, alpha, clip) for b, r in pairs)
        for k, (b, r) in enumerate(pairs):
            ratio = r if alpha == 1 else min(r**alpha, clip)
            surrogate = surrogate - b * ratio / alpha * log_q[i, k]
    rows = max(int(mask.sum()), 1)
    found = total(AdaptiveAlphaDivergence(*alphas, clip), z, teacher, mask=mask)
    assert found.item() == pytest.approx(expected / rows, rel=1e-6, abs=1e-10)
    assert found.item() >= -1e-12
    slopes = (torch.autograd.grad(x, z)[0] for x in (found, surrogate / rows))
    torch.testing.assert_close(*slopes, rtol=1e-7, atol=1e-10)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 1.5))
def test_without_clipping_the_larger_of_two(seed: int, spread: float) -> None:
    z, teacher = normal(2, 6, 4, seed=seed, scale=spread)
    log_p, log_q = teacher.log_softmax(1), z.log_softmax(1)
    rows = AdaptiveAlphaDivergence(-1.0, 1.0, 1e9)(z, teacher)
    both = [FDivergence("alpha", a)(z, teacher) for a in (-1.0, 1.0)]
    torch.testing.assert_close(rows, torch.maximum(*both))
    tighter = clipped_alpha_divergence(log_p, log_q, -1.0, 2.0)[0]
    assert bool((tighter <= both[0] + 1e-12).all())  # a tangent lies below


def test_both_sides_are_taken() -> None:
    """Too much on what the teacher finds unlikely: alpha -1; too little on the likely: KL."""
    sure, flat = torch.tensor([[0.6, 0.4]]), torch.tensor([[0.9, 0.1]])
    loss = AdaptiveAlphaDivergence()
    # (0.36 / 0.9 + 0.16 / 0.1 - 1) / 2 = 0.5, above KL = 0.226
    assert loss(sure.log(), flat.log()).item() == pytest.approx(0.5)
    # (0.81 / 0.6 + 0.01 / 0.4 - 1) / 2 = 0.1875, below KL = 0.6 log(2 / 3) + 0.4 log 4
    kl = 0.6 * math.log(2 / 3) + 0.4 * math.log(4)
    assert loss(flat.log(), sure.log()).item() == pytest.approx(kl)


def test_the_choice_is_between_cut_divergences() -> None:
    """p = (0.001, 0.999), q = (0.5, 0.5): the tangent at q / p = 5 gives 1.87, above KL's 0.69.

    Cut, alpha -1 is (0.5 * 5 + 0.25 / 0.999 - 1) / 2 = 0.875; with clip 3 it is 0.375, below KL.
    """
    q, p = torch.tensor([[0.5, 0.5]]), torch.tensor([[0.001, 0.999]])
    log_p, log_q = p.log(), q.log()
    tangent, worth = clipped_alpha_divergence(log_p, log_q, -1.0, 3.0)
    assert worth.item() == pytest.approx(0.375, abs=1e-3)
    kl = FDivergence("alpha", 1.0)(log_q, log_p).item()
    assert worth.item() < kl < tangent.item()
    assert AdaptiveAlphaDivergence(clip=3.0)(log_q, log_p).item() == pytest.approx(kl)
    assert AdaptiveAlphaDivergence(clip=5.0)(log_q, log_p).item() > kl


def test_clipping_bounds_the_gradient() -> None:
    """A student sure of what the teacher excludes: by row at most clip / |alpha|, times q."""
    z = torch.tensor([[9.0, 0.0, 0.0]], dtype=torch.float64, requires_grad=True)
    log_p = torch.tensor([[-20.0, 0.0, 0.0]], dtype=torch.float64).log_softmax(1)
    slopes = []
    for clip in (5.0, 1e6):
        value = clipped_alpha_divergence(log_p, z.log_softmax(1), -1.0, clip)[0]
        slopes.append(float(torch.autograd.grad(value.sum(), z)[0].abs().max()))
    assert slopes[0] < 5
    assert slopes[1] > 100


# -- labels and a teacher --------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    temperature=st.sampled_from([0.5, 1.0, 4.0]),
)
def test_distilled_ce_by_loop(seed: int, alpha: float, temperature: float) -> None:
    z, teacher = normal(2, 4, 5, seed=seed)
    mask = torch.rand(4, generator=torch.Generator().manual_seed(seed)) > 0.3
    expected = 0.0
    for i in range(4):
        if mask[i]:
            p, q = ((x[i] / temperature).softmax(0).tolist() for x in (teacher, z))
            kl = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
            expected += alpha * temperature**2 * kl
            expected -= (1 - alpha) * math.log(float(z[i].softmax(0)[i]))
    found = total(DistilledCrossEntropy(alpha, temperature), z, teacher, mask=mask)
    assert found.item() == pytest.approx(expected / max(int(mask.sum()), 1), abs=1e-12)


def test_ends_are_the_two_losses_and_soft_targets_are_linear() -> None:
    z, teacher = normal(2, 6, 4, seed=1)
    for alpha, same in ((0.0, CrossEntropy()), (1.0, KnowledgeDistillation(3.0))):
        torch.testing.assert_close(
            total(DistilledCrossEntropy(alpha, 3.0), z, teacher), total(same, z, teacher)
        )
    soft = normal(6, 4, seed=2).softmax(1)
    found = total(DistilledCrossEntropy(0.5, 1.0), z, teacher, target=soft)
    kd = total(KnowledgeDistillation(1.0), z, teacher)
    torch.testing.assert_close(found, kd / 2 + F.cross_entropy(z, soft) / 2)


def test_ignored_targets_and_forbidden_targets() -> None:
    z, teacher = normal(2, 4, 3, seed=4)
    loss = DistilledCrossEntropy()
    y = torch.tensor([0, -100, 2, 1])
    kept = y >= 0
    torch.testing.assert_close(
        total(loss, z, teacher, target=y),
        total(loss, z[kept], teacher[kept], target=y[kept]),
    )
    z[0, 0] = -math.inf
    assert total(DistilledCrossEntropy(1.0), z, teacher).isfinite()  # 0 times inf
    assert total(CrossEntropy(), z, teacher).isinf()  # a label at a forbidden class stays an error


# -- both ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", LOSSES, ids=str)
def test_gradients(loss: nn.Module) -> None:
    """Spread 2: ratios on both sides of the clip."""
    z = normal(6, 4, seed=5, scale=2).requires_grad_()
    teacher = normal(6, 4, seed=6, scale=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: total(loss, x, teacher), (z,))
    assert torch.autograd.grad(total(loss, z, teacher), teacher, allow_unused=True)[0] is None


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_computes_in_float32(loss: nn.Module, dtype: torch.dtype) -> None:
    z, teacher = (normal(6, 4, seed=s, scale=2).to(dtype) for s in (7, 8))
    found = total(loss, z.requires_grad_(), teacher)
    expected = total(loss, z.detach().double(), teacher.double())
    assert found.dtype == torch.float32
    assert found.item() == pytest.approx(expected.item(), rel=1e-5)
    assert torch.autograd.grad(found, z)[0].dtype == dtype
    apart = z.detach().t().contiguous().t()  # non-contiguous
    assert total(loss, apart, teacher).item() == pytest.approx(found.item())


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_finite_far_away(loss: nn.Module, dtype: torch.dtype) -> None:
    """Certain of another class; classes forbidden to the student, the teacher or both."""
    z = torch.tensor([[3e4, -3e4, 0.0], [0.5, 0.1, -math.inf], [-math.inf, 0.0, 9.0]], dtype=dtype)
    t = torch.tensor([[-3e4, 3e4, 0.0], [0.2, 0.3, -math.inf], [2.0, -math.inf, 9.0]], dtype=dtype)
    z.requires_grad_()
    # No label at a class that the student forbids: that is an infinite cross-entropy by right.
    found = total(loss, z, t, target=torch.tensor([1, 0, 2]))
    assert found.isfinite()
    assert torch.autograd.grad(found, z)[0].isfinite().all()


@pytest.mark.parametrize("loss", LOSSES, ids=str)
@pytest.mark.parametrize("rows", [0, 3])
@pytest.mark.parametrize("classes", [1, 4])
def test_no_rows_none_that_count_and_one_class(loss: nn.Module, rows: int, classes: int) -> None:
    """A connected zero, whatever stands in rows that do not count; one column is no softmax."""
    z = normal(rows, classes).fill_(math.nan).requires_grad_()
    teacher, mask = normal(rows, classes, seed=1), torch.zeros(rows, dtype=torch.bool)
    if classes == 1:
        with pytest.raises(ValueError, match="one column of logits"):
            total(loss, z, teacher, mask=mask)
        return
    found = total(loss, z, teacher, mask=mask)
    assert found.item() == 0
    assert not torch.autograd.grad(found, z)[0].any()


@pytest.mark.parametrize("alphas", ALPHAS)
def test_zero_where_student_and_teacher_agree(alphas: tuple[float, float]) -> None:
    z = normal(5, 4, seed=9).requires_grad_()
    found = total(AdaptiveAlphaDivergence(*alphas), z, z.detach() + 3)
    assert found.item() == pytest.approx(0, abs=1e-12)
    assert torch.autograd.grad(found, z)[0].abs().max() < 1e-10


def test_keys_are_what_the_classes_default_to() -> None:
    z, teacher = normal(2, 5, 4, seed=3, scale=2)
    target = torch.arange(5) % 4
    for key, loss in (
        ("adaptive_alpha_kd", AdaptiveAlphaDivergence()),
        ("gpg_kd", DistilledCrossEntropy()),
    ):
        named = {"target": target, "teacher_logits": teacher}
        torch.testing.assert_close(
            build_objective([key])(z, **named).total, objective_of(loss)(z, **named).total
        )


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AdaptiveAlphaDivergence(0.0, 1.0), "alpha_min must be negative"),
        (lambda: AdaptiveAlphaDivergence(-1.0, math.inf), "both finite"),
        (lambda: AdaptiveAlphaDivergence(-1.0, math.nan), "both finite"),
        (lambda: AdaptiveAlphaDivergence(clip=1.0), "clip must be above 1 and finite, got 1.0"),
        (lambda: DistilledCrossEntropy(1.5), r"alpha must be in \[0, 1\], got 1.5"),
        (lambda: DistilledCrossEntropy(0.5, 0.0), "temperature must be positive"),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
