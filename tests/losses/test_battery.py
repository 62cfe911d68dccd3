# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every key of the catalogue through one battery: what any loss must do, with inputs by contract.

A new key is in it by existing. What a key cannot do is in a list here, with the reason.
"""

from __future__ import annotations

import copy
from typing import Any

import pytest
import torch
from factory import (
    ABSOLUTE,
    LOSSES,
    ONE_SCORE,
    PARAMETERS_ONLY,
    PARTLY_DETACHED,
    REAL_TARGET,
    WHOLE,
    build,
    inputs,
    leaves,
)
from mutations import case, first_kind, judge, mutations
from torch import Tensor, nn

from lightning_losses import Objective
from lightning_losses.config.catalogue import target_class
from lightning_losses.contract import Contract

WITH_ROWS = [key for key in LOSSES if key not in PARAMETERS_ONLY]

#: Which rows are drawn, or what noise they get, depends on their place in the batch.
BY_PLACE = {"clip_cov", "concept_bottleneck", "metric_mixup"}
#: Rows of two kinds: those that are replayed are a batch of their own, of which no mask tells.
OWN_ROWS = {"dark_experience"}
#: Columns of theirs are items or variables, of which one has nothing to be compared with.
COMPARES_COLUMNS = {
    *("decoupled_softmax", "inter_variable_contrastive", "mann_whitney", "multilabel_softmax"),
    "soft_topk",
}
#: Their gradient is that of something else than their value, and their docstrings say of what.
OTHER_GRADIENT = {*PARTLY_DETACHED, "circle", "cispo", "compositional_nll", "gspo"}
#: Its gradient is as right as the transport plan that its iterations found.
ROUGH = {"pulaski_sinkhorn": 1e-2}
#: Probabilities, variances and weights: not scores of any size.
BOUNDED = {"attention", "variance", "inverse_propensity", "bag_proportion", "old_class_map"}


def gradients(total: Tensor, named: dict[str, Any], objective: Objective) -> list[Tensor]:
    """Of everything that is trained; 0 where it does not matter."""
    wanted = [*leaves(named).values(), *(p for p in objective.parameters() if p.requires_grad)]
    found = torch.autograd.grad(total, wanted, allow_unused=True)
    return [torch.zeros_like(x) if g is None else g for x, g in zip(wanted, found, strict=True)]


def cast(named: dict[str, Any], dtype: torch.dtype, scale: float = 1.0) -> dict[str, Any]:
    """The same tensors in another dtype, scores larger."""

    def one(name: str, x: Any) -> Any:
        if isinstance(x, nn.Module):
            return copy.deepcopy(x).to(dtype)
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            return x
        large = scale if x.requires_grad and name not in BOUNDED else 1.0
        return (x.detach() * large).to(dtype).requires_grad_(x.requires_grad)

    return {name: one(name, x) for name, x in named.items()}


def of_rows(named: dict[str, Any], index: Tensor) -> dict[str, Any]:
    """Some of the rows, in some order."""

    def one(name: str, x: Any) -> Any:
        if not isinstance(x, Tensor):
            return x
        some = x.detach().clone() if name in WHOLE else x.detach()[index]
        return some.requires_grad_(x.requires_grad)

    return {name: one(name, x) for name, x in named.items()}


def evaluated(key: str, named: dict[str, Any], **more: Any) -> tuple[Tensor, list[Tensor]]:
    objective = build(key)
    total = objective(**named, **more).total
    return total.detach(), gradients(total, named, objective)


@pytest.mark.parametrize("key", LOSSES)
def test_contract(key: str) -> None:
    cls = target_class("loss", key)
    assert cls is not None
    assert isinstance(build(key).terms[key].loss.contract, Contract)


@pytest.mark.parametrize("key", LOSSES)
def test_extreme_scores_are_finite(key: str) -> None:
    named = case(key)
    for dtype in (torch.float16, torch.bfloat16, torch.float32, torch.float64):
        for scale in (0.0, 3e3):
            given = cast(named, dtype, scale)
            total, found = evaluated(key, given)
            assert total.isfinite(), (dtype, scale)
            assert total.dtype == (torch.float64 if dtype == torch.float64 else torch.float32)
            for gradient in found:
                # What float16 cannot hold is the scaler's matter.
                assert not gradient.isnan().any(), (dtype, scale)


@pytest.mark.parametrize("key", LOSSES)
def test_float32_is_near_float64(key: str) -> None:
    named = case(key)
    total, found = evaluated(key, named)
    rough, near = evaluated(key, cast(named, torch.float32))
    torch.testing.assert_close(rough.double(), total, rtol=1e-4, atol=1e-5)
    for a, b in zip(near, found, strict=True):
        size = b.abs().max().double().clamp(min=1e-6) if b.numel() else 1.0
        torch.testing.assert_close(a.double() / size, b.double() / size, rtol=0, atol=2e-3)


def test_an_offset_of_all_scores_of_a_row_is_nothing() -> None:
    """Of 2^20, where float32 has steps of 1/8: eighths stay exact, a log-sum-exp does not."""
    # Some compare scores of different rows, or read each by itself.
    others = {*ABSOLUTE, *REAL_TARGET, *ONE_SCORE, "profit_aware_bce"}
    for key in (k for k in LOSSES if k not in others):
        named = cast(case(key), torch.float32)
        scores = {"logits", "logits_adv", "logit_map", "concept_logits"} & named.keys()
        found = []
        for offset in (0.0, 2.0**20) if scores else ():
            moved = {n: (named[n].detach() * 8).round() / 8 + offset for n in sorted(scores)}
            moved = {n: z.requires_grad_() for n, z in moved.items()}
            total = build(key)(**{**named, **moved}).total
            found.append([total, *torch.autograd.grad(total, list(moved.values()))])
        for a, b in zip(*found, strict=True):
            said = f"{key}: {b} for {a}"
            torch.testing.assert_close(b, a, atol=1e-5, rtol=1e-3, msg=said)


@pytest.mark.parametrize("key", [key for key in WITH_ROWS if key not in BY_PLACE])
def test_the_order_of_rows_is_nothing(key: str) -> None:
    named = case(key)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    total, found = evaluated(key, named)
    moved = of_rows(named, order)
    again, back = evaluated(key, moved)
    torch.testing.assert_close(again, total, rtol=1e-9, atol=1e-9)
    for name, a, b in zip(leaves(named), back, found, strict=False):
        b = b if name in WHOLE else b[order]
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("key", [key for key in WITH_ROWS if key not in OWN_ROWS])
def test_ignored_is_deleted(key: str) -> None:
    """Rows at the end, which a mask leaves out and which hold NaN where they may."""
    named = case(key, rows=8)
    kept = torch.arange(8) < 6
    total, found = evaluated(key, of_rows(named, torch.arange(6)))
    broken = {
        name: torch.where(
            kept.reshape(-1, *[1] * (x.ndim - 1)), x.detach(), torch.nan
        ).requires_grad_(x.requires_grad)
        if isinstance(x, Tensor) and x.is_floating_point() and name not in WHOLE
        else x
        for name, x in named.items()
    }
    again, back = evaluated(key, broken, mask=kept)
    torch.testing.assert_close(again, total, rtol=1e-9, atol=1e-12)
    for name, a, b in zip(leaves(named), back, found, strict=False):
        counted = len(a) if name in WHOLE else 6
        torch.testing.assert_close(a[:counted], b, rtol=1e-7, atol=1e-10)
        assert not a[counted:].any()


@pytest.mark.parametrize("key", [key for key in WITH_ROWS if key not in OWN_ROWS])
def test_nothing_counts_and_a_batch_of_one(key: str) -> None:
    named = case(key)
    objective = build(key)
    total = objective(**named, mask=torch.zeros(6, dtype=torch.bool)).total
    assert total == 0
    assert total.requires_grad, "not connected to the graph"
    assert not any(g.any() for g in gradients(total, named, objective))
    one = of_rows(named, torch.tensor([2]))
    total, found = evaluated(key, one)
    assert total.isfinite()
    assert all(g.isfinite().all() for g in found)


@pytest.mark.parametrize("key", WITH_ROWS)
def test_twice_the_batch_is_the_same_mean(key: str) -> None:
    objective = build(key)
    ((_, term),) = objective.named_terms()
    if term.loss.scope != "rows" or term.weighs_rows:
        pytest.skip("its rows know of one another")
    named = case(key)
    total, _ = evaluated(key, named)
    again, _ = evaluated(key, of_rows(named, torch.arange(6).repeat(2)))
    torch.testing.assert_close(again, total, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("key", [key for key in LOSSES if key not in OTHER_GRADIENT])
def test_the_gradient_is_that_of_the_value(key: str) -> None:
    """Along one direction, by central differences in float64."""
    objective = build(key)
    ((_, term),) = objective.named_terms()
    if term.weighs_rows:
        pytest.skip("row weights are constants of the gradient")
    named = case(key, seed=1)
    g = torch.Generator().manual_seed(2)
    total = objective(**named).total
    direction = {
        n: torch.randn(x.shape, generator=g, dtype=x.dtype) for n, x in leaves(named).items()
    }
    if "attention" in direction:  # of probabilities, whose sum stays
        x = direction["attention"]
        direction["attention"] = 0.01 * (x - x.mean(-1, keepdim=True))
    found = gradients(total, named, objective)
    slope = sum(float((d * a).sum()) for d, a in zip(direction.values(), found, strict=False))

    def at(step: float) -> float:
        objective = build(key)
        if "module" in named:
            moved = copy.deepcopy(named["module"])
            with torch.no_grad():
                for name, p in moved.named_parameters():
                    p += step * direction[f"module.{name}"]
            return float(objective(**{**named, "module": moved}).total)
        shifted = {n: named[n].detach() + step * d for n, d in direction.items()}
        return float(objective(**{**named, **shifted}).total)

    step = 1e-6
    expected = (at(step) - at(-step)) / (2 * step)
    assert slope == pytest.approx(expected, rel=ROUGH.get(key, 1e-5), abs=1e-6)


@pytest.mark.parametrize("key", LOSSES)
def test_a_nan_is_named(key: str) -> None:
    named = case(key)
    for name, x in named.items():
        if not (isinstance(x, Tensor) and x.is_floating_point()):
            continue
        for bad in (torch.nan, torch.inf):
            broken = x.detach().clone()
            broken[2] = bad
            objective = build(key)
            with pytest.raises(ValueError, match=rf"\b{name}\b"):
                objective(**{**named, name: broken.requires_grad_(x.requires_grad)})


@pytest.mark.parametrize("key", LOSSES)
def test_a_wrong_tensor_is_the_right_number_or_is_named(key: str) -> None:
    named = case(key)
    objective = build(key)
    kind = first_kind(objective)
    expected = objective(**named).total.detach()
    wrong = []
    for name, x in named.items():
        if not isinstance(x, Tensor):
            continue
        for mutation in mutations(name, x, named, kind, key):
            outcome, text = judge(objective, named, name, mutation, expected)
            if outcome in ("raw", "silent"):
                wrong.append(f"{name}, {mutation.label}: {outcome}: {text[:200]}")
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("key", [key for key in LOSSES if key not in COMPARES_COLUMNS])
def test_one_column_of_scores_is_binary_or_refused(key: str) -> None:
    """A softmax of one class is 1: a constant, from which nothing is learned without a word."""
    if "logits" not in case(key):
        pytest.skip("reads no logits")
    objective = build(key, classes=1)
    try:
        named = inputs(objective, rows=6, classes=1)
        if "binary" in objective.terms[key].loss.contract.target and named["target"].ndim == 1:
            named["target"] = torch.tensor([0, 1, 1, 0, 1, 0])
        total = objective(**named).total
    except (ValueError, TypeError):
        return
    assert any(g.any() for g in gradients(total, named, objective))
