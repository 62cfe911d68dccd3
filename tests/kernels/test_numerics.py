# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Where floating point would answer with a wrong number in silence: every kernel, every front door.

Rows of logits that share a large offset, rows whose every class is masked, heads in float16.
"""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_losses import Objective, softmax_stats
from lightning_losses.losses import CompSum, CrossEntropy, EntropyBonus, Focal
from lightning_losses.softmax import SMALL, STATISTICS, unavailable
from lightning_losses.softmax.compute import make_problem

pytestmark = pytest.mark.filterwarnings("ignore:(overflow|invalid value):RuntimeWarning")
KERNELS = ("reference", "chunked", "triton", "triton_keep", "triton_lean")
#: Float statistics that an offset of all logits leaves as they are.
SHIFTLESS = tuple(n for n in STATISTICS if n not in ("logsumexp", "mean_logit", "prediction"))
N, V = 5, 37

#: float32 has steps of 1/8 there: what tells the classes apart is exact, its sum with log V is not.
OFFSET = 2.0**20


def skip_unless_available(kernel: str) -> None:
    if kernel.startswith("triton") and unavailable(make_problem(logits=torch.zeros(1, 2))):
        pytest.skip("no Triton here")


def eighths(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return torch.randint(-16, 17, shape, generator=g).double() / 8


def wanted(kernel: str, names: tuple[str, ...]) -> list[str]:
    return [n for n in names if (kernel, n) != ("triton_lean", "weighted_log_prob")]


def given(route: str, offset: float, dtype: torch.dtype) -> tuple[dict[str, Any], list[Tensor]]:
    """Logits of eighths plus an offset, and the tensors to differentiate by."""
    z = eighths(N, V)
    if route == "logits":
        leaves = {"logits": (z + offset).to(dtype)}
    else:
        leaves = {"hidden": z.to(dtype), "head_weight": torch.eye(V, dtype=dtype)}
        leaves["head_bias"] = torch.full((V,), offset, dtype=dtype)
    leaves = {name: x.requires_grad_() for name, x in leaves.items()}
    target = torch.arange(N) * 7
    target[1] = -100
    return {**leaves, "target": target}, list(leaves.values())


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_a_common_offset_changes_nothing(kernel: str, route: str) -> None:
    skip_unless_available(kernel)
    if (kernel, route) == ("triton_lean", "logits"):
        pytest.skip("mode lean takes no logits")
    want = wanted(kernel, SHIFTLESS)
    weight = torch.arange(V).double() / V
    found = []
    for name, offset, dtype in ((kernel, OFFSET, torch.float32), ("reference", 0, torch.float64)):
        named, leaves = given(route, offset, dtype)
        weighted = {} if name == "triton_lean" else {"class_weight": weight.to(dtype)}
        stats = softmax_stats(**named, **weighted, want=want, kernel=name)
        values = [getattr(stats, n) for n in want]
        ups = [torch.linspace(0.5, 2, N).to(dtype) * (i + 1) for i in range(len(want))]
        total = sum((x * up).sum() for x, up in zip(values, ups, strict=True))
        found.append([*values, *torch.autograd.grad(total, leaves)])
    for a, b, what in zip(*found, [*want, *"123"], strict=False):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=2e-5, msg=lambda m, w=what: w + m)


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("route", ["logits", "hidden"])
def test_nor_does_it_change_an_objective(kernel: str, route: str) -> None:
    """Label smoothing as well, and from hidden states the pass that forms gradients forward."""
    skip_unless_available(kernel)
    if (kernel, route) == ("triton_lean", "logits"):
        pytest.skip("mode lean takes no logits")
    terms = {"ce": CrossEntropy(0.3), "focal": Focal(), "h": EntropyBonus(), "gce": CompSum(0.7)}
    found = []
    for name, offset, dtype in ((kernel, OFFSET, torch.float32), ("reference", 0, torch.float64)):
        named, leaves = given(route, offset, dtype)
        total = Objective(terms, kernel=name)(**named).total
        found.append([total, *torch.autograd.grad(total, leaves)])
    for a, b in zip(*found, strict=True):
        torch.testing.assert_close(a.double(), b, atol=2e-5, rtol=2e-5)


@pytest.mark.parametrize("kernel", ["auto", "reference", "chunked", "triton"])
def test_two_equal_logits_of_a_hundred_million(kernel: str) -> None:
    skip_unless_available(kernel)
    z = torch.full((1, 2), 1e8, requires_grad=True)
    for smoothing in (0.0, 0.5):
        loss = Objective({"ce": CrossEntropy(smoothing)}, kernel=kernel)(z, torch.tensor([0])).total
        torch.testing.assert_close(loss, torch.tensor(math.log(2)))
        (slope,) = torch.autograd.grad(loss, z)
        half = 0.5 * (1 - smoothing)
        torch.testing.assert_close(slope, torch.tensor([[-half, half]]))


@pytest.mark.parametrize("kernel", ["reference", "chunked", "triton"])
def test_the_slope_of_a_large_log_sum_exp_is_p(kernel: str) -> None:
    """As exp(z - logsumexp) it would be 1 for either, as if each class were certain."""
    skip_unless_available(kernel)
    z = torch.full((1, 2), 1e8, requires_grad=True)
    value = softmax_stats(z, want=["logsumexp"], kernel=kernel).logsumexp
    assert value is not None
    torch.testing.assert_close(torch.autograd.grad(value, z)[0], torch.full((1, 2), 0.5))


# -- rows without any class ------------------------------------------------------------------------


@pytest.mark.parametrize("kernel", KERNELS)
@pytest.mark.parametrize("options", [{}, {"softcap": None, "logit_scale": 0.5}], ids=["", "scale"])
def test_a_row_whose_every_class_is_masked_is_nan_and_no_other(
    kernel: str, options: dict[str, Any]
) -> None:
    """It has no softmax. Other rows stay as they are, also those with some classes masked."""
    skip_unless_available(kernel)
    if kernel == "triton_lean":
        pytest.skip("mode lean takes no logits")
    z = eighths(N, V).float()
    z[0, ::2] = -math.inf
    z[3] = -math.inf
    leaf = z.clone().requires_grad_()
    target = torch.tensor([1, 2, 3, 4, -100])
    weight = torch.ones(V)
    named = {"target": target, "class_weight": weight, "kernel": kernel, **options}
    stats = softmax_stats(leaf, **named)
    others = [0, 1, 2, 4]
    right = softmax_stats(z[others], **named | {"target": target[others]})
    for name in (n for n in STATISTICS if n != "prediction"):
        value = getattr(stats, name)
        assert value[3].isnan(), name
        torch.testing.assert_close(value[others], getattr(right, name))
    rows = stats.log_prob + stats.entropy + stats.confidence
    (slope,) = torch.autograd.grad(rows.sum(), leaf)
    assert slope[3].isnan().all()
    assert slope[others].isfinite().all()


@pytest.mark.parametrize("name", ["log_prob", "logsumexp", "entropy", "collision", "confidence"])
@pytest.mark.parametrize("kernel", KERNELS)
def test_a_head_whose_bias_masks_every_class(kernel: str, name: str) -> None:
    skip_unless_available(kernel)
    named, leaves = given("hidden", -math.inf, torch.float32)
    value = getattr(softmax_stats(**named, want=[name], kernel=kernel), name)
    assert value.isnan().tolist() == [True, False, True, True, True]  # row 1 does not count
    (slope, _) = torch.autograd.grad(value.sum(), leaves[:2])
    assert slope.isnan().any(1).tolist() == [True, False, True, True, True]


# 34 rows of 30,000 classes are few enough entries for the materialised kernel, 36 are not.
@pytest.mark.parametrize("rows", [34, 36])
def test_the_rule_does_not_depend_on_the_size(rows: int) -> None:
    assert (rows * 30_000 <= SMALL) == (rows == 34)
    z = torch.zeros(rows, 30_000)
    z[2] = -math.inf
    stats = softmax_stats(z, target=torch.zeros(rows, dtype=torch.long), want=["log_prob"])
    assert stats.log_prob.isnan().nonzero().tolist() == [[2]]


# -- heads and states in float16 -------------------------------------------------------------------


@pytest.mark.parametrize("kernel", ["chunked", "triton"])
@pytest.mark.parametrize("halves", [("head_weight",), ("head_bias",), ("hidden", "head_weight")])
def test_a_loss_scale_reaches_float16_gradients(kernel: str, halves: tuple[str, ...]) -> None:
    """A factor that is inf in float16, times gradients that are numbers with it only."""
    skip_unless_available(kernel)
    g = torch.Generator().manual_seed(0)
    shapes = {"hidden": (64, 8), "head_weight": (V, 8), "head_bias": (V,)}
    drawn = {name: torch.randn(shape, generator=g).half() for name, shape in shapes.items()}
    target = torch.randint(V, (64,), generator=g)
    found = []
    for exact in (False, True):
        leaves = {
            name: x.double() if exact else x if name in halves else x.float()
            for name, x in drawn.items()
        }
        leaves = {name: x.requires_grad_() for name, x in leaves.items()}
        objective = Objective({"ce": CrossEntropy()}, kernel="reference" if exact else kernel)
        total = objective(**leaves, target=target, normalizer=1e4).total
        found.append(torch.autograd.grad(total * 2.0**16, list(leaves.values())))
    for ours, right in zip(*found, strict=True):
        torch.testing.assert_close(ours.double(), right, rtol=1e-2, atol=1e-2 * right.abs().max())
