# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Regression on estimate and reference against torch's own losses, with rows that do not count."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.losses import ElementwiseError, GaussianNLL, SplitPoint, SquaredError
from lightning_losses.metrics import split_point_discrepancy

SHAPES = [(6,), (6, 1), (6, 3), (6, 2, 4)]


def case(shape: tuple[int, ...]) -> tuple[Tensor, Tensor, Tensor]:
    g = torch.Generator().manual_seed(0)
    x, y, v = torch.randn(3, *shape, generator=g, dtype=torch.float64)
    return x.requires_grad_(), 2 * y, v.exp().requires_grad_()


PAIRS: list[tuple[str, dict[str, Any], nn.Module]] = [
    ("mse", {}, nn.MSELoss()),
    ("l1", {}, nn.L1Loss()),
    ("smooth_l1", {}, nn.SmoothL1Loss()),
    ("smooth_l1", {"width": 0.3}, nn.SmoothL1Loss(beta=0.3)),
    ("huber", {}, nn.HuberLoss()),
    ("huber", {"width": 2.5}, nn.HuberLoss(delta=2.5)),
]


def made(key: str, options: dict[str, Any], **more: Any) -> Objective:
    from lightning_losses.config.build import compose_losses

    node = compose_losses([key])
    node[key].update(options)
    return build_objective(node, **more)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize(("key", "options", "loss"), PAIRS)
def test_as_torch(
    key: str, options: dict[str, Any], loss: nn.Module, shape: tuple[int, ...]
) -> None:
    x, y, _ = case(shape)
    found = made(key, options)(estimate=x, reference=y).total
    torch.testing.assert_close(found, loss(x, y))
    a, b = (torch.autograd.grad(total, x)[0] for total in (found, loss(x, y)))
    torch.testing.assert_close(a, b)
    mask = torch.tensor([True, False, True, True, False, True])
    broken = torch.where(mask.reshape(-1, *[1] * (y.ndim - 1)), y, torch.nan)
    found = made(key, options)(estimate=x, reference=broken, mask=mask).total
    torch.testing.assert_close(found, loss(x[mask], y[mask]))
    assert torch.autograd.grad(found, x)[0].isfinite().all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("options", [{}, {"full": True}, {"eps": 0.5}])
def test_gaussian_nll_as_torch(options: dict[str, Any], shape: tuple[int, ...]) -> None:
    x, y, v = case(shape)
    expected = nn.GaussianNLLLoss(**options)(x, y, v)
    found = made("gaussian_nll", options)(estimate=x, reference=y, variance=v).total
    torch.testing.assert_close(found, expected)
    for a, b in zip(*(torch.autograd.grad(t, (x, v)) for t in (found, expected)), strict=True):
        torch.testing.assert_close(a, b)
    if len(shape) > 1:  # one variance for all entries of the last dimension
        for one in (v[..., :1], v[..., 0]):
            expected = nn.GaussianNLLLoss(**options)(x, y, v[..., :1])
            found = made("gaussian_nll", options)(estimate=x, reference=y, variance=one).total
            torch.testing.assert_close(found, expected)


def test_gaussian_nll_of_no_variance() -> None:
    """0 is taken as eps; a negative one is none, and what a masked row holds is nobody's matter."""
    x, y = torch.zeros(2, 1), torch.zeros(2, 1)
    zero = torch.zeros(2, 1, requires_grad=True)
    total = Objective({"x": GaussianNLL()})(estimate=x, reference=y, variance=zero).total
    assert total.item() == pytest.approx(math.log(1e-6) / 2)
    assert torch.autograd.grad(total, zero)[0].isfinite().all()
    wrong = torch.tensor([[1.0], [-1.0]])
    objective = Objective({"x": GaussianNLL()})
    with pytest.raises(ValueError, match="variance must be at least 0, found -1"):
        objective(estimate=x, reference=y, variance=wrong)
    mask = torch.tensor([True, False])
    assert objective(estimate=x, reference=y, variance=wrong, mask=mask).total == 0


def test_split_point_heads_learn_the_means_of_residuals() -> None:
    """The least of the loss is where each head has its mean, and then they do not contradict."""
    g = torch.Generator().manual_seed(0)
    y = torch.randn(200, 2, generator=g, dtype=torch.float64).exp()
    estimate = y.mean(0).expand_as(y).clone().requires_grad_()
    r = (y - estimate).detach()
    loss = Objective({"x": SplitPoint()})

    def total(residual: Tensor, above: Tensor, below: Tensor) -> Tensor:
        heads = {"residual": residual, "above": above, "below": below}
        wide = {name: x.expand_as(y) for name, x in heads.items()}
        return loss(estimate=estimate, reference=y, **wide).total

    heads = [torch.zeros(2, dtype=torch.float64, requires_grad=True) for _ in range(3)]
    optimizer = torch.optim.LBFGS(heads, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        value = total(*heads)
        value.backward()
        return value

    for _ in range(3):
        optimizer.step(closure)
    v, u, low = (x.detach() for x in heads)
    torch.testing.assert_close(v, r.abs().mean(0))
    for column in range(2):
        one = r[:, column]
        assert float(u[column]) == pytest.approx(float(one[one > 0].mean()))
        assert float(low[column]) == pytest.approx(-float(one[one < 0].mean()))
    assert split_point_discrepancy(v, u, low).max() < 1e-6
    assert estimate.grad is None  # the split is given
    # By a loop, with rows that do not count and one exactly at the estimate, which is on no side.
    y[0] = estimate[0].detach()
    mask = torch.arange(200) % 3 != 1
    a, b, c = (torch.rand(200, 2, generator=g, dtype=torch.float64) for _ in range(3))
    slow = [
        (a[i, j] - abs(r)) ** 2 + (r > 0) * (b[i, j] - r) ** 2 + (r < 0) * (c[i, j] + r) ** 2
        for i in range(200)
        for j in range(2)
        for r in [float(y[i, j] - estimate.detach()[i, j])]
        if mask[i]
    ]
    broken = torch.where(mask[:, None], y, torch.nan)
    heads_now = {"residual": a, "above": b, "below": c}
    found = loss(estimate=estimate, reference=broken, **heads_now, mask=mask).total
    assert float(found) == pytest.approx(float(sum(slow)) / len(slow))
    with pytest.raises(ValueError, match=r"above must be \(200, 2\), as estimate, got \(200, 1\)"):
        loss(estimate=estimate, reference=y, **(heads_now | {"above": b[:, :1]}))


@pytest.mark.parametrize("loss", [ElementwiseError(), ElementwiseError("huber"), SquaredError()])
def test_shapes_that_would_broadcast(loss: nn.Module) -> None:
    """(N,) beside (N, 1) is the commonest mistake of a regression: torch warns, and makes N x N."""
    with pytest.raises(ValueError, match=r"estimate \(4,\) and reference \(4, 1\) must have one"):
        Objective({"x": loss})(estimate=torch.zeros(4), reference=torch.zeros(4, 1))


def test_variances_that_go_with_no_estimate() -> None:
    x = torch.zeros(4, 3)
    for shape in ((3,), (4, 2), (1, 3), ()):
        with pytest.raises(ValueError, match="variance must be"):
            GaussianNLL()(x, x, torch.ones(shape))


def test_bad_settings() -> None:
    with pytest.raises(ValueError, match="distance must be one of squared"):
        ElementwiseError("cubic")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="for 0 write distance: absolute"):
        ElementwiseError("huber", 0.0)
    with pytest.raises(ValueError, match="eps must be positive"):
        GaussianNLL(0.0)


def test_a_row_without_entries_is_zero() -> None:
    x = torch.zeros(3, 0, requires_grad=True)
    total = Objective({"x": ElementwiseError()})(estimate=x, reference=torch.zeros(3, 0)).total
    assert total == 0
    assert total.requires_grad
