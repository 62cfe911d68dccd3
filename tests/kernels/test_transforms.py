# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Under torch.compile, torch.func and batched gradients every kernel says the same numbers."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

import pytest
import torch
import torch._dynamo
from torch import Tensor
from torch.func import grad, jacrev, vmap

from lightning_losses import Objective, softmax_stats
from lightning_losses.losses import CrossEntropy, EntropyBonus, Focal
from lightning_losses.softmax import unavailable
from lightning_losses.softmax.compute import make_problem

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
KERNELS = ("reference", "chunked", "triton", "triton_keep", "triton_lean")
B, N, D, V = 3, 4, 5, 7


def skip_unless_available(kernel: str, route: str = "hidden") -> None:
    if kernel.startswith("triton") and unavailable(make_problem(logits=torch.zeros(1, 2))):
        pytest.skip("no Triton here")
    if (kernel, route) == ("triton_lean", "logits"):
        pytest.skip("mode lean takes no logits")


def draw(*shape: int, dtype: torch.dtype = torch.float64) -> Tensor:
    g = torch.Generator().manual_seed(sum(shape))
    return torch.randn(shape, generator=g, dtype=torch.float64).to(dtype)


# -- torch.compile ---------------------------------------------------------------------------------


# What a training loop does with one compiled function: train, validate under no_grad, and evaluate
# tensors that need no gradient (not the same: then autograd functions are not entered at all).
CONDITIONS = ("grad", "no_grad", "plain")


def compiled_equals_eager(f: Any, made: dict[str, Tensor], **options: Any) -> None:
    torch._dynamo.reset()
    compiled = torch.compile(f, **options)
    for how in CONDITIONS:
        leaves = {n: x.detach().requires_grad_(how != "plain") for n, x in made.items()}
        with torch.no_grad() if how == "no_grad" else nullcontext():
            totals = [g(**leaves) for g in (compiled, f)]
        torch.testing.assert_close(*totals)
        assert totals[0].requires_grad == (how == "grad")
        if how == "grad":
            slopes = [torch.autograd.grad(total, list(leaves.values())) for total in totals]
            torch.testing.assert_close(*slopes, atol=1e-5, rtol=1e-5)


def tensors(route: str) -> dict[str, Tensor]:
    if route == "logits":
        return {"logits": draw(N, V, dtype=torch.float32)}
    shapes = {"hidden": (N, D), "head_weight": (V, D), "head_bias": (V,)}
    return {name: draw(*shape, dtype=torch.float32) for name, shape in shapes.items()}


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("route", ["logits", "hidden"])
@pytest.mark.parametrize("fullgraph", [True, False])
def test_compiled_statistics_train_and_validate(kernel: str, route: str, fullgraph: bool) -> None:
    skip_unless_available(kernel, route)
    target = torch.tensor([0, 6, -100, 2])

    def f(**named: Tensor) -> Tensor:
        s = softmax_stats(**named, target=target, kernel=kernel, want=["log_prob", "entropy"])
        return (s.log_prob * s.entropy).sum()

    # Tracing is where it failed; "eager" then runs what was traced as it is.
    compiled_equals_eager(f, tensors(route), fullgraph=fullgraph, backend="eager")


@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_a_compiled_objective_trains_and_validates(route: str) -> None:
    objective = Objective({"ce": CrossEntropy(0.1), "h": EntropyBonus()}, kernel="chunked")
    target = torch.tensor([0, 6, -100, 2])

    def f(**named: Tensor) -> Tensor:
        return objective(**named, target=target).total

    compiled_equals_eager(f, tensors(route), fullgraph=True, backend="aot_eager")


# -- gradients of single samples -------------------------------------------------------------------


def mixture(kernel: str, route: str = "hidden", **options: Any) -> Any:
    """A scalar in which the upstream gradient of each statistic depends on another."""
    want = ["log_prob", "entropy", "confidence", "mean_log_prob", "logsumexp"]

    def f(head: Tensor, hidden: Tensor, target: Tensor) -> Tensor:
        source = {"hidden": hidden, "head_weight": head}
        if route == "logits":
            source = {"logits": hidden @ head.T}
        s = softmax_stats(**source, target=target, kernel=kernel, want=want, **options)
        rows = s.log_prob * s.entropy.sin() + s.confidence * s.mean_log_prob + s.logsumexp.tanh()
        return rows.sum()

    return f


def samples(dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A head, and hidden states and targets of several samples, one token ignored."""
    target = torch.arange(B * N).reshape(B, N) % V
    target[0, 1] = -100
    return draw(V, D, dtype=dtype), draw(B, N, D, dtype=dtype), target


def one_by_one(f: Any, head: Tensor, hidden: Tensor, target: Tensor) -> list[Tensor]:
    """Gradients of head and hidden by an ordinary backward pass for each sample."""
    found = []
    for h, y in zip(hidden, target, strict=True):
        leaves = [x.detach().clone().requires_grad_() for x in (head, h)]
        found.append(torch.autograd.grad(f(*leaves, y), leaves))
    return [torch.stack(column) for column in zip(*found, strict=True)]


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("route", ["logits", "hidden"])
@pytest.mark.parametrize("softcap", [None, 3.0])
def test_vmap_of_grad(kernel: str, route: str, softcap: float | None) -> None:
    """Per-sample gradients, as privacy and influence functions want them."""
    skip_unless_available(kernel, route)
    dtype = torch.float32 if kernel.startswith("triton") else torch.float64
    tolerance = {"atol": 1e-5, "rtol": 1e-4} if dtype == torch.float32 else {}
    f, inputs = mixture(kernel, route, softcap=softcap), samples(dtype)
    found = vmap(grad(f, (0, 1)), (None, 0, 0))(*inputs)
    for ours, right in zip(found, one_by_one(f, *inputs), strict=True):
        torch.testing.assert_close(ours, right, **tolerance)


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
def test_vmap_of_heads(kernel: str) -> None:
    """An ensemble: each sample with a head of its own, and the samples along another dimension."""
    f, (_, hidden, target) = mixture(kernel), samples(torch.float64)
    heads = draw(V, B, D)
    found = vmap(grad(f, (0, 1)), (1, 1, 0))(heads, hidden.movedim(0, 1), target)
    for i in range(B):
        right = one_by_one(f, heads[:, i], hidden[i : i + 1], target[i : i + 1])
        for ours, one in zip(found, right, strict=True):
            torch.testing.assert_close(ours[i], one[0])


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
def test_vmap_of_values_and_a_jacobian(kernel: str) -> None:
    head, hidden, target = samples(torch.float64)
    f = mixture(kernel)
    values = vmap(f, (None, 0, 0))(head, hidden, target)
    right = [f(head, h, y) for h, y in zip(hidden, target, strict=True)]
    torch.testing.assert_close(values, torch.stack(right))
    slopes = jacrev(lambda w: vmap(f, (None, 0, 0))(w, hidden, target))(head)
    torch.testing.assert_close(slopes, one_by_one(f, head, hidden, target)[0])


@pytest.mark.parametrize("kernel", KERNELS)
def test_a_batch_of_gradients(kernel: str) -> None:
    """``is_grads_batched`` writes nothing in place that the batch shares."""
    skip_unless_available(kernel)
    dtype = torch.float32 if kernel.startswith("triton") else torch.float64
    head, hidden, target = samples(dtype)
    leaves = [head.requires_grad_(), hidden[1].clone().requires_grad_()]
    named = {"head_weight": leaves[0], "hidden": leaves[1], "target": target[1]}
    s = softmax_stats(**named, want=["log_prob", "entropy"], kernel=kernel)
    rows, each = s.log_prob * s.entropy, torch.eye(N, dtype=dtype)
    found = torch.autograd.grad(rows, leaves, each, is_grads_batched=True, retain_graph=True)
    right = [torch.autograd.grad(rows, leaves, up, retain_graph=True) for up in each]
    for ours, column in zip(found, zip(*right, strict=True), strict=True):
        torch.testing.assert_close(ours, torch.stack(column), atol=1e-5, rtol=1e-4)


def test_a_batch_of_gradients_of_the_one_pass() -> None:
    head, hidden, target = samples(torch.float64)
    leaves = [head.requires_grad_(), hidden[1].clone().requires_grad_()]
    objective = Objective({"ce": CrossEntropy(0.1), "focal": Focal()}, kernel="chunked")
    total = objective(head_weight=leaves[0], hidden=leaves[1], target=target[1]).total
    factors = torch.tensor([1.0, -2.0, 0.5], dtype=torch.float64)
    found = torch.autograd.grad(total, leaves, factors, is_grads_batched=True, retain_graph=True)
    right = torch.autograd.grad(total, leaves)
    for ours, one in zip(found, right, strict=True):
        torch.testing.assert_close(ours, torch.stack([f * one for f in factors]))


@pytest.mark.parametrize("kernel", ["auto", "reference", "chunked"])
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_per_sample_gradients_of_an_objective(kernel: str, route: str) -> None:
    objective = Objective({"ce": CrossEntropy(0.1), "h": EntropyBonus()}, kernel=kernel)

    def f(head: Tensor, hidden: Tensor, target: Tensor) -> Tensor:
        if route == "logits":
            return objective(hidden @ head.T, target).total
        return objective(hidden=hidden, head_weight=head, target=target).total

    inputs = samples(torch.float64)
    found = vmap(grad(f, (0, 1)), (None, 0, 0))(*inputs)
    for ours, right in zip(found, one_by_one(f, *inputs), strict=True):
        torch.testing.assert_close(ours, right)
