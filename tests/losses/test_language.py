# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of language models against loops and exact arithmetic."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses import Objective, build_objective
from lightning_losses.losses import FLAT, AdaptiveUnlearning, DirectCoverage, EarthMover
from lightning_losses.losses.language.dco import coverage_factor, coverage_loss


def exact(log_p: float, samples: int) -> tuple[float, float]:
    """Loss and slope in 400 digits, so that neither end rounds."""
    with localcontext() as context:
        context.prec = 400
        p = Decimal(log_p).exp()
        miss = (1 - p) ** samples
        loss = -(1 - miss).ln() if miss < 1 else Decimal("inf")
        slope = -samples * p * (1 - p) ** (samples - 1) / (1 - miss)
        return float(loss), float(slope)


@pytest.mark.parametrize("samples", [1, 2, 64])
def test_coverage_is_exact_from_sure_to_hopeless(samples: int) -> None:
    for log_p in (-1e-9, -0.01, -0.7, -3.0, -20.0, -36.5, -200.0, -800.0):
        loss, slope = exact(log_p, samples)
        for dtype, rtol in ((torch.float64, 1e-12), (torch.float32, 1e-5)):
            x = torch.tensor([log_p], dtype=dtype, requires_grad=True)
            value = coverage_loss(x, samples)
            (grad,) = torch.autograd.grad(value.sum(), x)
            assert value.item() == pytest.approx(loss, rel=rtol, abs=1e-30), (log_p, dtype)
            assert grad.item() == pytest.approx(slope, rel=10 * rtol, abs=1e-30), (log_p, dtype)
            assert coverage_factor(x, samples).item() == pytest.approx(-grad.item())


def test_coverage_at_the_ends() -> None:
    x = torch.tensor([0.0, -1e4], requires_grad=True)
    value = coverage_loss(x, 8)
    (grad,) = torch.autograd.grad(value.sum(), x)
    assert value.tolist() == pytest.approx([0.0, 1e4 - math.log(8)])
    assert grad.tolist() == [0.0, -1.0]


def test_dco_of_one_sample_is_cross_entropy_of_sequences() -> None:
    g = torch.Generator().manual_seed(0)
    z = torch.randn(3, 4, 5, generator=g, dtype=torch.float64)
    y = torch.randint(5, (3, 4), generator=g)
    y[0, 2:] = y[2] = -100
    ids = torch.arange(3)[:, None].expand(3, 4)
    named = {"logits": z, "target": y, "sequence_id": ids}
    total = Objective({"x": DirectCoverage(1)})(**named).total
    nll = F.cross_entropy(z.reshape(-1, 5), y.reshape(-1), reduction="none").reshape(3, 4).sum(1)
    torch.testing.assert_close(total, nll[:2].mean())
    half = Objective({"x": DirectCoverage(2)})(**named).total
    p = (-nll[:2]).exp()
    torch.testing.assert_close(half, -(1 - (1 - p) ** 2).log().mean())
    each = Objective({"x": DirectCoverage(1, per_token=True)})(**named).total
    torch.testing.assert_close(each, (nll[:2] / torch.tensor([2.0, 4.0])).mean())


def test_emo_with_unrelated_words_and_in_chunks() -> None:
    """With orthogonal embeddings c is 1 - p_y in gradient and 1 in value."""
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(7, 6, generator=g, dtype=torch.float64).requires_grad_()
    head = torch.randn(6, 6, generator=g, dtype=torch.float64).requires_grad_()
    y = torch.randint(6, (7,), generator=g)
    cost = torch.eye(6, dtype=torch.float64)
    z = hidden @ head.T
    ce = F.cross_entropy(z, y, reduction="none")
    p = (-ce).exp()
    wanted = (0.5 * (1 + ce.detach() * p.detach()) * ce).sum()
    loss = EarthMover("likelihood")(hidden, head, y, cost_embedding=cost)
    torch.testing.assert_close(loss, ce)
    for a, b in zip(
        torch.autograd.grad(loss.sum(), (hidden, head)),
        torch.autograd.grad(wanted, (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    whole = EarthMover()(hidden, head, y)
    parts = EarthMover(chunk=2)(hidden, head, y)
    torch.testing.assert_close(parts, whole)
    for a, b in zip(
        torch.autograd.grad(parts.sum(), (hidden, head)),
        torch.autograd.grad(whole.sum(), (hidden, head)),
        strict=True,
    ):
        torch.testing.assert_close(a, b)
    assert EarthMover()(hidden[:0], head, y[:0]).shape == (0,)
    zero = head.detach().clone().index_fill(0, torch.tensor([2]), 0.0).requires_grad_()
    value = EarthMover()(hidden, zero, y)
    assert value.isfinite().all()
    assert torch.autograd.grad(value.sum(), zero)[0].isfinite().all()


def flat_total(divergence: str, good: Tensor, bad: Tensor) -> Tensor:
    log_prob = torch.cat([good, bad]).log()
    forget = torch.arange(len(log_prob)) >= len(good)
    loss = FLAT(divergence)  # type: ignore[arg-type]
    return loss(log_prob, forget)


def test_flat_of_the_card() -> None:
    one, none = torch.ones(2, dtype=torch.float64), torch.full((3,), 1e-300, dtype=torch.float64)
    assert flat_total("total_variation", one, none).item() == pytest.approx(-0.380797, abs=1e-6)
    same = torch.tensor([0.3], dtype=torch.float64)
    assert flat_total("total_variation", same, same).item() == pytest.approx(0)
    x = one.clone().requires_grad_()
    value = flat_total("neyman", one, x)
    assert torch.autograd.grad(value, x)[0].isfinite().all()


def test_unlearning_weighs_what_was_forgotten_too() -> None:
    objective = build_objective({"unlearning": {"epoch_steps": 2}})
    loss = objective.terms["unlearning"].loss
    assert isinstance(loss, AdaptiveUnlearning)
    log_prob = torch.tensor([-1.0, -1.0, -2.0], requires_grad=True)
    forget = torch.tensor([False, False, True])
    for step in range(2):
        objective.set_step(step)
        total = objective(log_prob=log_prob, forget=forget).total
        assert total.item() == pytest.approx(1.2 * 1.0 - 2.0)
    objective.set_step(2)
    assert loss.before.item() == pytest.approx(1.0)
    worse = torch.tensor([-1.5, -1.5, -2.0])
    # 0.3 * 6^0.5 + 0.8 = 1.535, to one decimal
    assert objective(log_prob=worse, forget=forget).total.item() == pytest.approx(1.5 * 1.5 - 2.0)
    again = build_objective({"unlearning": {"epoch_steps": 2}})
    again.load_state_dict(objective.state_dict())
    again.set_step(3)
    assert again(log_prob=worse, forget=forget).total.item() == pytest.approx(1.5 * 1.5 - 2.0)


@pytest.mark.parametrize(
    "make",
    [
        lambda: DirectCoverage(0),
        lambda: EarthMover("sum"),  # type: ignore[arg-type]
        lambda: EarthMover(chunk=0),
        lambda: FLAT("l2"),  # type: ignore[arg-type]
        lambda: AdaptiveUnlearning(0),
        lambda: EarthMover()(torch.zeros(2, 3), torch.zeros(5, 3), torch.tensor([0, 7])),
    ],
)
def test_bad_settings(make: object) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()  # type: ignore[operator]
