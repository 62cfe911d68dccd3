# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Ordinal losses, quantiles and regression as classification against obvious loops.

Numbers for one row are worked out by hand from the papers' formulas:
o = [1, -1] with y = 1, f = [2, 0, -1].
"""

from __future__ import annotations

import math
from itertools import pairwise
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import (
    CategoricalTD,
    Coral,
    Corn,
    CrossEntropy,
    OrdinalNLL,
    Pinball,
    PseudoHuber,
)
from lightning_losses.losses.ordinal.corn import corn_probabilities
from lightning_losses.losses.ordinal.ordinal_nll import GAP, ordinal_softmax
from lightning_losses.penalties import AdjacentLasso
from lightning_losses.targets import TwoHot

O1 = torch.tensor([[1.0, -1.0]], dtype=torch.float64)
F1 = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
Y1 = torch.tensor([1])


def value(loss: nn.Module | Term, **named: Any) -> float:
    return float(Objective({"x": loss})(**named).total)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


# -- values worked out by hand ---------------------------------------------------------------------


def test_numbers_of_the_cards() -> None:
    named = {"logits": O1, "target": Y1}
    assert value(Coral(), **named) == pytest.approx(0.626523, abs=1e-6)
    assert float(build_objective("ordinal_ce")(**named).total) == pytest.approx(0.626523, abs=1e-6)
    assert value(Corn(3), **named) == pytest.approx(0.313262, abs=1e-6)
    assert value(Corn(3, "classes"), **named) == pytest.approx(0.626523 / 3, abs=1e-6)
    p = ordinal_softmax(O1)[0]
    assert p.tolist() == pytest.approx([0.268941, 0.462117, 0.268941], abs=1e-6)
    assert value(OrdinalNLL(), **named) == pytest.approx(-math.log(0.462117), abs=1e-6)
    hot = TwoHot(-1.0, 1.0, 3)
    target = torch.tensor([0.2], dtype=torch.float64)
    assert hot(target)[0].tolist() == pytest.approx([0, 0.8, 0.2])
    term = Term(CrossEntropy(), target_transform=hot)
    assert value(term, logits=F1, target=target) == pytest.approx(2.369846, abs=1e-6)
    d = torch.tensor([[3.0, 4.0]], dtype=torch.float64)
    huber = value(PseudoHuber(1.0), estimate=d, reference=torch.zeros_like(d))
    assert huber == pytest.approx(4.099020, abs=1e-6)


# -- by loop ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(1, 5),
    masked=st.booleans(),
    by=st.sampled_from(["pairs", "classes"]),
)
def test_ordinal_by_loop(seed: int, classes: int, masked: bool, by: Any) -> None:
    g = torch.Generator().manual_seed(seed)
    tasks = classes - 1
    z = torch.randn(6, tasks, generator=g, dtype=torch.float64)
    falling = z.sort(1, descending=True).values - 0.05 * torch.arange(tasks)
    y = torch.randint(classes, (6,), generator=g)
    mask = torch.rand(6, generator=g) > 0.3 if masked else torch.ones(6, dtype=torch.bool)
    weight = [0.5 + k for k in range(tasks)]
    coral, corn, pairs, nll, rows = 0.0, 0.0, 0, 0.0, 0
    for i in range(6):
        if not mask[i]:
            continue
        rows += 1
        for k in range(tasks):
            p = sigmoid(float(z[i, k]))
            loss = -math.log(p) if y[i] > k else -math.log(1 - p)
            coral += weight[k] * loss
            if y[i] >= k:
                corn, pairs = corn + loss, pairs + 1
        above = [1.0, *(sigmoid(v) for v in falling[i].tolist()), 0.0]
        nll -= math.log(above[y[i]] - above[y[i] + 1])
    named = {"logits": z, "target": y, "mask": mask}
    assert value(Coral(weight), **named) == pytest.approx(coral / max(rows, 1))
    divisor = max(pairs, 1) if by == "pairs" else classes * max(rows, 1)
    assert value(Corn(classes, by), **named) == pytest.approx(corn / divisor)
    found = value(OrdinalNLL(), **(named | {"logits": falling}))
    assert found == pytest.approx(nll / max(rows, 1), abs=1e-12)


@settings(max_examples=40, deadline=None)
@given(
    target=st.floats(-3, 3), bins=st.integers(1, 12), low=st.floats(-2, 0), on_atom=st.booleans()
)
def test_two_hot_by_loop(target: float, bins: int, low: float, on_atom: bool) -> None:
    high = 1.5
    atoms = [low + (high - low) * i / max(bins - 1, 1) for i in range(bins)]
    target = atoms[bins // 2] if on_atom else target
    x = min(max(target, low), high)
    step = (high - low) / max(bins - 1, 1)
    expected = [max(0.0, 1 - abs(x - a) / step) for a in atoms] if bins > 1 else [1.0]
    hot = TwoHot(low, high, bins)
    found = hot(torch.tensor([target], dtype=torch.float64))
    assert found[0].tolist() == pytest.approx(expected, abs=1e-9)
    assert float(found.sum()) == pytest.approx(1)
    if bins > 1:
        mean = hot.mean(found.log().clamp(min=-1e4))
        assert float(mean) == pytest.approx(x, abs=1e-4)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), classes=st.integers(2, 7), ended=st.booleans())
def test_c51_by_loop(seed: int, classes: int, ended: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    z, other = torch.randn(2, 4, classes, generator=g, dtype=torch.float64)
    reward = 4 * torch.randn(4, generator=g, dtype=torch.float64)
    reward[0] = 1.0  # on an atom if the episode ended there, for odd numbers of atoms up to 7
    discount = torch.full((4,), 0.0 if ended else 0.9, dtype=torch.float64)
    low, high = -3.0, 3.0
    step = (high - low) / max(classes - 1, 1)
    atoms = [low + step * k for k in range(classes)]
    expected = 0.0
    for i in range(4):
        p, log_p = other[i].softmax(0).tolist(), z[i].log_softmax(0).tolist()
        for mass, atom in zip(p, atoms, strict=True):
            x = min(max(float(reward[i]) + float(discount[i]) * atom, low), high)
            for k in range(classes):
                share = max(0.0, 1 - abs(x - atoms[k]) / step) if classes > 1 else 1.0
                expected -= mass * share * log_p[k] / 4
    named = {"logits": z, "next_logits": other, "reward": reward, "discount": discount}
    assert value(CategoricalTD(low, high), **named) == pytest.approx(expected, rel=1e-7)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 1000), intervals=st.integers(0, 3))
def test_pinball_is_the_interval_score(seed: int, intervals: int) -> None:
    """Against the interval score's own formula; quantiles may cross."""
    g = torch.Generator().manual_seed(seed)
    alphas = [0.1, 0.3, 0.62][:intervals]
    q = torch.randn(5, 2 * intervals + 1, generator=g, dtype=torch.float64)
    y = torch.randn(5, generator=g, dtype=torch.float64)
    levels = [*(a / 2 for a in alphas), 0.5, *(1 - a / 2 for a in alphas)]
    pinball = score = 0.0
    for i in range(5):
        t = float(y[i])
        for tau, v in zip(levels, q[i].tolist(), strict=True):
            pinball += max(tau * (t - v), (tau - 1) * (t - v)) / len(levels) / 5
        parts = [abs(t - float(q[i, intervals])) / 2]
        for k, a in enumerate(alphas):
            low, high = float(q[i, k]), float(q[i, intervals + 1 + k])
            inner = (high - low) + 2 / a * max(low - t, 0) + 2 / a * max(t - high, 0)
            parts.append(a / 2 * inner)
        score += sum(parts) / (intervals + 0.5) / 5
    named = {"quantiles": q, "target": y}
    assert value(Pinball(levels), **named) == pytest.approx(pinball, rel=1e-9)
    assert value(Pinball(levels, factor=2.0), **named) == pytest.approx(score, rel=1e-9)


def test_pinball_is_least_at_the_quantile() -> None:
    y = torch.arange(1, 101, dtype=torch.float64)
    losses = [
        value(Pinball([0.9]), quantiles=torch.full((100, 1), q, dtype=torch.float64), target=y)
        for q in (80.5, 90.5, 95.5)
    ]
    assert min(losses) == losses[1]


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), c=st.sampled_from([None, 0.01, 2.0]), scale=st.floats(1e-6, 1e3))
def test_pseudo_huber_by_loop(seed: int, c: float | None, scale: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x, y = scale * torch.randn(2, 3, 2, 4, generator=g, dtype=torch.float64)
    width = 0.00054 * math.sqrt(8) if c is None else c
    rows = [math.hypot(*(x[i] - y[i]).flatten().tolist(), width) - width for i in range(3)]
    found = value(PseudoHuber(c), estimate=x, reference=y)
    assert found == pytest.approx(sum(rows) / 3, rel=1e-6, abs=1e-12)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), levels=st.integers(1, 4))
def test_presto_penalty_by_loop(seed: int, levels: int) -> None:
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Linear(3, 5), nn.Linear(5, levels))
    w = module[1].weight.tolist()
    expected = sum(abs(v) for v in w[0])
    for before, after in pairwise(w):
        expected += sum(abs(a - b) for a, b in zip(after, before, strict=True))
    found = Objective({"x": AdjacentLasso(r"^1\.weight")})(module=module).total
    assert float(found) == pytest.approx(expected, rel=1e-5)
    # Equal slopes: what is left is their own length.
    nn.init.constant_(module[1].weight, 0.5)
    assert float(AdjacentLasso("1.weight")(module)) == pytest.approx(2.5)
    with pytest.raises(ValueError, match="no weight matrix matching 'nope'"):
        AdjacentLasso("nope")(module)


# -- limits and edges ------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 5))
def test_rank_consistency(seed: int, spread: float) -> None:
    """CORN's chain falls whatever the logits; CORAL's and the ordinal softmax with one slope."""
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(5, 4, generator=g, dtype=torch.float64)
    assert (corn_probabilities(z).diff(dim=1) <= 0).all()
    shared = z[:, :1] + torch.tensor([2.0, 1.0, 0.0, -3.0])
    p = ordinal_softmax(shared)
    assert (p > 0).all()
    torch.testing.assert_close(p.sum(1), torch.ones(5, dtype=torch.float64))


def test_two_classes_are_logistic_regression() -> None:
    """One level: CORAL, CORN and the ordinal softmax are all the binary cross-entropy."""
    z = torch.randn(5, 1, dtype=torch.float64)
    y = torch.tensor([0, 1, 1, 0, 1])
    bce = nn.functional.binary_cross_entropy_with_logits(z[:, 0], y.double()).item()
    for loss in (Coral(), Corn(2), OrdinalNLL()):
        assert value(loss, logits=z, target=y) == pytest.approx(bce)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_ordinal_nll_out_of_order_pulls_back(dtype: torch.dtype) -> None:
    """Equal or rising levels: finite, continuous at the seam, and the gradient parts the levels."""
    y = torch.tensor([1])
    for gap in (0.0, -3.0, 1e-9):
        z = torch.tensor([[gap, 0.0]], dtype=dtype, requires_grad=True)
        total = Objective({"x": OrdinalNLL()})(z, y).total
        total.backward()
        assert total.isfinite()
        assert z.grad[0, 0] < 0 < z.grad[0, 1]
    near = [
        value(OrdinalNLL(), logits=torch.tensor([[GAP * f, 0.0]]).double(), target=y)
        for f in (0.9999, 1.0001)
    ]
    assert near[0] == pytest.approx(near[1], abs=1e-3)
    far = torch.tensor([[200.0, -200.0]], dtype=dtype, requires_grad=True)
    Objective({"x": OrdinalNLL()})(far, torch.tensor([2])).total.backward()
    assert far.grad.isfinite().all()


def test_extreme_logits_are_finite() -> None:
    z = torch.tensor([[1e4, -1e4], [-1e4, 1e4]], requires_grad=True)
    y = torch.tensor([0, 2])
    for loss in (Coral(), Corn(3)):
        total = Objective({"x": loss})(z, y).total
        assert total.isfinite()
        assert torch.autograd.grad(total, z)[0].isfinite().all()


def test_forbidden_classes_of_c51() -> None:
    """A class at -inf in both networks gets no mass and sends no NaN."""
    z = torch.tensor([[0.5, -math.inf, 0.1]], requires_grad=True)
    other = torch.tensor([[0.2, -math.inf, 0.3]])
    named = {"reward": torch.zeros(1), "discount": torch.ones(1)}
    total = Objective({"x": CategoricalTD(-1, 1)})(z, next_logits=other, **named).total
    total.backward()
    assert total.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: TwoHot(1.0, 1.0, 3), "max_value > min_value"),
        (lambda: CategoricalTD(1.0, -1.0), "max_value > min_value"),
        (lambda: Corn(3, "rows"), "divide_by must be"),
        (lambda: Pinball([]), r"in \(0, 1\)"),
        (lambda: Pinball([0.0, 0.5]), r"in \(0, 1\)"),
        (lambda: PseudoHuber(0.0), "c must be positive"),
        (lambda: value(Corn(4), logits=O1, target=Y1), "num_classes=3"),
        (lambda: value(Coral(), logits=O1, target=torch.tensor([3])), "K classes need K - 1"),
        (lambda: value(OrdinalNLL(), logits=O1, target=torch.tensor([3])), "K - 1 logits"),
        (lambda: value(Pinball([0.5]), quantiles=O1, target=torch.zeros(1)), "2 levels|1 levels"),
        (lambda: value(PseudoHuber(), estimate=O1, reference=F1), "one shape"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
