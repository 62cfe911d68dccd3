# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""sigma_reparam: spectral norms that are one learned number each."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.utils import parametrize

from lightning_losses.spectral_reparam import SigmaReparam, sigma_reparam


def linear(inside: int = 5, outside: int = 4, **options: object) -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(inside, outside, **options)  # type: ignore[arg-type]


def norm(weight: Tensor) -> float:
    return float(torch.linalg.matrix_norm(weight.detach().double(), 2))


def test_registering_changes_no_output() -> None:
    model = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    x = torch.randn(2, 5, 8)
    before = model(x)
    names = {n for n, _ in model.named_parameters()}
    assert sigma_reparam(model) is model
    torch.testing.assert_close(model(x), before)
    done = {n.split(".parametrizations")[0] for n, _ in model.named_parameters() if "gamma" in n}
    assert done == {"self_attn", "self_attn.out_proj", "linear1", "linear2"}
    for part in list(model.modules()):
        for name in ("weight", "in_proj_weight"):
            if parametrize.is_parametrized(part, name):
                parametrize.remove_parametrizations(part, name)
    assert {n for n, _ in model.named_parameters()} == names
    torch.testing.assert_close(model(x), before)


@settings(max_examples=20, deadline=None)
@given(
    gamma=st.floats(0.1, 10), size=st.floats(1e-3, 1e3), shape=st.tuples(*[st.integers(1, 9)] * 2)
)
def test_norm_is_gamma_whatever_the_size_of_the_weight(
    gamma: float, size: float, shape: tuple[int, int]
) -> None:
    layer = sigma_reparam(linear(*shape, dtype=torch.float64))
    rule = layer.parametrizations.weight[0]
    rule.gamma.data.fill_(gamma)
    assert norm(layer.weight) == pytest.approx(gamma, rel=1e-6)
    before = layer.weight.detach().clone()
    layer.parametrizations.weight.original.data.mul_(size)
    torch.testing.assert_close(layer.weight.detach(), before)


def test_each_forward_takes_a_step_of_power_iteration_and_training_keeps_it() -> None:
    layer = sigma_reparam(linear(dtype=torch.float64))
    rule = layer.parametrizations.weight[0]
    weight = torch.randn(4, 5).double()
    layer.parametrizations.weight.original.data = weight
    layer.eval()
    vectors = rule.u.clone(), rule.v.clone()
    once = layer.weight.detach()
    off = abs(norm(once) - rule.gamma.item())
    v = weight @ rule.u
    v = v / v.norm()
    u = weight.t() @ v
    torch.testing.assert_close(once, rule.gamma * weight / u.norm())  # v'W u/|u| = |W'v|
    assert torch.equal(layer.weight, once)  # again, from the same vectors
    assert torch.equal(rule.u, vectors[0])
    assert torch.equal(rule.v, vectors[1])
    layer.train()
    torch.testing.assert_close(layer.weight.detach(), once)  # in training the same, but kept
    torch.testing.assert_close(rule.u, u / u.norm())
    for _ in range(300):
        layer(torch.zeros(1, 5).double())
    assert norm(layer.weight) == pytest.approx(rule.gamma.item(), rel=1e-6)
    assert off > 1e-3


def test_gradient_is_that_of_the_quotient() -> None:
    """Against finite differences of gamma W / ||W||, for which u and v need no gradient."""
    layer = sigma_reparam(linear(3, 2, dtype=torch.float64)).eval()
    rule = layer.parametrizations.weight[0]

    def exact(w: Tensor, gamma: Tensor) -> Tensor:
        return gamma * w / torch.linalg.matrix_norm(w, 2)

    w = layer.parametrizations.weight.original.detach().requires_grad_()
    gamma, up = rule.gamma.detach().requires_grad_(), torch.randn(2, 3).double()
    expected = torch.autograd.grad((exact(w, gamma) * up).sum(), (w, gamma))
    original, scale = layer.parametrizations.weight.original, rule.gamma
    found = torch.autograd.grad((layer.weight * up).sum(), (original, scale))
    torch.testing.assert_close(found, expected)


def test_two_forwards_before_one_backward_and_the_checkpoint() -> None:
    layer = sigma_reparam(linear())
    x = torch.randn(3, 5)
    (layer(x) + layer(2 * x)).square().sum().backward()
    assert layer.parametrizations.weight[0].gamma.grad is not None
    other = sigma_reparam(nn.Linear(5, 4))
    other.load_state_dict(copy.deepcopy(layer.state_dict()))
    assert torch.equal(other.eval()(x), layer.eval()(x))
    assert {n for n, _ in layer.named_buffers()} == {
        "parametrizations.weight.0.u",
        "parametrizations.weight.0.v",
    }


def test_half_precision_and_autocast() -> None:
    layer = linear()
    expected = sigma_reparam(copy.deepcopy(layer)).weight
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(sigma_reparam(copy.deepcopy(layer)).weight, expected)
    half = sigma_reparam(layer.bfloat16())
    assert half.weight.dtype == torch.bfloat16
    torch.testing.assert_close(half.weight.float(), expected, rtol=2e-2, atol=1e-3)


def test_a_weight_that_became_zero_comes_back() -> None:
    layer = sigma_reparam(linear())
    layer.parametrizations.weight.original.data.zero_()
    assert not bool(layer.weight.any())
    layer.parametrizations.weight.original.data.normal_()
    assert bool(layer.weight.isfinite().all())
    assert bool(layer.weight.any())


def test_refusals() -> None:
    with pytest.raises(ValueError, match=r"found no nn\.Linear"):
        sigma_reparam(nn.LayerNorm(3))
    with pytest.raises(ValueError, match="has a parametrization already"):
        sigma_reparam(sigma_reparam(linear()))
    with pytest.raises(ValueError, match="call sigma_reparam on initialised weights"):
        SigmaReparam(torch.zeros(2, 3))
