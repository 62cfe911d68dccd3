# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses for rare classes, bags, lists and attributes against loops that are obviously right.

Numbers for one row are worked out by hand from the papers' formulas:
f = [2, 0, -1] with y = 0, b = [2, -1, .5] with t = [1, 0, 0].
"""

from __future__ import annotations

import math
from itertools import product
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import (
    AggregateResponses,
    AnyLoss,
    ClassBalanced,
    CrossEntropy,
    CSDivergence,
    CSMutualInformation,
    Dice,
    DistanceCovariance,
    EntropyBonus,
    Focal,
    KdeKL,
    LabelProportion,
    LogitAdjustment,
    ProfitAwareBCE,
    TriBCE,
)
from lightning_losses.losses.shared.constant import constant

F1 = torch.tensor([[2.0, 0.0, -1.0]], dtype=torch.float64)
Y1 = torch.tensor([0])
B = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
T = torch.tensor([1.0, 0.0, 0.0], dtype=torch.float64)

Row = list[float]


def value(loss: nn.Module | Term, **named: Any) -> float:
    return float(Objective({"x": loss})(**named).total)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softmax(row: Row) -> Row:
    e = [math.exp(z - max(row)) for z in row]
    return [v / sum(e) for v in e]


# -- values worked out by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (ClassBalanced([100, 10, 1], beta=0.9), 0.040649),
        (LogitAdjustment([100, 10, 1]), 0.013934),
        (LogitAdjustment([100, 10, 1], tau=0.0), 0.169846),
    ],
)
def test_known_numbers_on_classes(loss: nn.Module, expected: float) -> None:
    assert value(loss, logits=F1, target=Y1) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (Dice(0.0, 1e-4, square=False), 0.364536),
        (Dice(alpha=0.0), 0.146494),
        (Dice(1.0, 1.0, square=False, style="paper"), 0.259925),
        (AnyLoss("f_beta"), 0.333304),
        (AnyLoss("accuracy"), 0.333290),
        (AnyLoss("balanced_accuracy"), 0.249967),
        (AnyLoss("gmean"), 0.292847),
    ],
)
def test_known_numbers_on_binary_scores(loss: nn.Module, expected: float) -> None:
    assert value(loss, logits=B, target=T) == pytest.approx(expected, abs=1e-6)
    assert value(loss, logits=B, target=T.long()) == pytest.approx(expected, abs=1e-6)


def test_more_known_numbers() -> None:
    weights = ClassBalanced([100, 10, 1], beta=0.9).class_weight
    assert weights == pytest.approx((0.239329, 0.367442, 2.393229), abs=1e-6)
    bag = {"bag_id": torch.zeros(2, dtype=torch.long), "bag_target": torch.ones(2)}
    z = torch.tensor([1.0, 3.0])
    assert value(AggregateResponses(0.0), logits=z, **bag) == pytest.approx(1.0)
    assert value(AggregateResponses(1.0), logits=z, **bag) == pytest.approx(2.0)
    uniform = {"logits": torch.zeros(2, 3), "bag_id": torch.zeros(2, dtype=torch.long)}
    share = torch.tensor([[0.2, 0.5, 0.3]]).expand(2, 3)
    assert value(LabelProportion(), **uniform, bag_proportion=share) == pytest.approx(math.log(3))
    pa = value(ProfitAwareBCE(), logits=torch.tensor([1.0, 0.0]), profit=torch.tensor([9.0, 0.0]))
    assert pa == pytest.approx(0.156631, abs=1e-6)
    branches = {"logits_deep": B[:2], "logits_shallow": torch.tensor([0.0, 1.0]).double()}
    for detach in (False, True):
        tri = value(TriBCE(detach), **branches, target=torch.tensor([1, 0]))
        assert tri == pytest.approx(1.004807, abs=1e-6)
    x = torch.randn(6, 2, dtype=torch.float64)
    assert value(DistanceCovariance(), logits=x, sensitive=torch.ones(6)) == 0


def test_presets() -> None:
    named = {"logits": F1, "target": Y1}
    counts = {"class_counts": [100, 10, 1]}
    for key in ("logit_adjustment", "balanced_softmax"):
        node = {"_target_": "lightning_losses.losses.LogitAdjustment", **counts}
        assert float(build_objective({key: node})(**named).total) == pytest.approx(
            0.013934, abs=1e-6
        )
    penalty = build_objective("confidence_penalty")(**named).total
    assert float(penalty) == pytest.approx(0.1 * value(EntropyBonus(), **named))


# -- by loop ---------------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    beta=st.floats(0, 0.9999),
    gamma=st.sampled_from([0.0, 0.5, 2.0]),
    tau=st.floats(0, 2),
    counts=st.lists(st.integers(1, 5000), min_size=3, max_size=3),
)
def test_classes_by_loop(
    seed: int, beta: float, gamma: float, tau: float, counts: list[int]
) -> None:
    g = torch.Generator().manual_seed(seed)
    z, y = (
        2 * torch.randn(4, 3, generator=g, dtype=torch.float64),
        torch.randint(3, (4,), generator=g),
    )
    w = [(1 - beta) / (1 - beta**n) for n in counts]
    w = [3 * v / sum(w) for v in w]
    balanced, adjusted = 0.0, 0.0
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        p = softmax(row)[k]
        balanced += -w[k] * (1 - p) ** gamma * math.log(p) / 4
        shifted = [v + tau * math.log(n / sum(counts)) for v, n in zip(row, counts, strict=True)]
        adjusted += -math.log(softmax(shifted)[k]) / 4
    named = {"logits": z, "target": y}
    assert value(ClassBalanced(counts, beta, gamma), **named) == pytest.approx(balanced, rel=1e-7)
    assert value(LogitAdjustment(counts, tau), **named) == pytest.approx(adjusted, rel=1e-9)


def score_by_loop(kind: str, beta: float, yes: Row, t: Row) -> float | None:
    tp = sum(a * b for a, b in zip(yes, t, strict=True))
    n, sy, syh = len(t), sum(t), sum(yes)
    if kind == "accuracy":
        return (n - sy - syh + 2 * tp) / n
    if not sy or (kind != "f_beta" and sy == n):
        return None
    if kind == "f_beta":
        return (1 + beta**2) * tp / (beta**2 * sy + syh)
    if kind == "balanced_accuracy":
        return (n * (tp + sy) - sy * (syh + sy)) / (2 * sy * (n - sy))
    return math.sqrt(max(tp * (n - syh - sy + tp) / (sy * (n - sy)), 0.0))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 6),
    classes=st.integers(1, 4),
    kind=st.sampled_from(["accuracy", "f_beta", "balanced_accuracy", "gmean"]),
    beta=st.sampled_from([0.5, 1.0, 2.0]),
    steepness=st.sampled_from([3.0, 20.0]),
)
def test_anyloss_by_loop(
    seed: int, rows: int, classes: int, kind: Any, beta: float, steepness: float
) -> None:
    """One class stands for binary scores."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.rand(rows, generator=g) > 0.2
    if classes == 1:
        z = torch.randn(rows, generator=g, dtype=torch.float64)
        y = torch.randint(2, (rows,), generator=g)
        columns = [([sigmoid(v) for v in z[mask].tolist()], [float(v) for v in y[mask]])]
    else:
        z = torch.randn(rows, classes, generator=g, dtype=torch.float64)
        y = torch.randint(classes, (rows,), generator=g)
        p = [softmax(row) for row in z[mask].tolist()]
        columns = [
            ([row[k] for row in p], [float(v == k) for v in y[mask].tolist()])
            for k in range(classes)
        ]
    scores: Row = []
    for column, t in columns:
        yes = [sigmoid(steepness * (v - 0.5)) for v in column]
        found = score_by_loop(kind, beta, yes, t) if t else None
        if found is not None:
            scores.append(found)
    expected = sum(1 - s for s in scores) / len(scores) if scores else 0.0
    loss = AnyLoss(kind, beta, steepness)
    assert value(loss, logits=z, target=y, mask=mask) == pytest.approx(
        expected, rel=1e-9, abs=1e-12
    )


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    alpha=st.sampled_from([0.0, 0.3, 1.0]),
    square=st.booleans(),
    style=st.sampled_from(["repo", "paper"]),
    classes=st.integers(1, 4),
)
def test_dice_by_loop(seed: int, alpha: float, square: bool, style: Any, classes: int) -> None:
    """One class stands for binary scores."""
    g = torch.Generator().manual_seed(seed)
    mask = torch.tensor([True, True, False, True])
    s = 0.5
    if classes == 1:
        z = torch.randn(4, generator=g, dtype=torch.float64)
        y = torch.randint(2, (4,), generator=g)
        p = [[sigmoid(v)] for v in z[mask].tolist()]
        t = [[float(v)] for v in y[mask].tolist()]
    else:
        z = torch.randn(4, classes, generator=g, dtype=torch.float64)
        y = torch.randint(classes, (4,), generator=g)
        p = [softmax(row) for row in z[mask].tolist()]
        t = [[float(k == v) for k in range(classes)] for v in y[mask].tolist()]
    q = [[(1 - v) ** alpha * v for v in row] for row in p]
    e = 2 if square else 1

    def mass(i: int, k: int) -> float:
        return q[i][k] ** e + t[i][k] ** e

    if style == "paper":
        each = [
            1 - (2 * q[i][k] * t[i][k] + s) / (mass(i, k) + s)
            for i, k in product(range(3), range(classes))
        ]
        expected = sum(each) / len(each)
    elif classes == 1:
        expected = 1 - (2 * sum(q[i][0] * t[i][0] for i in range(3)) + s) / (
            sum(mass(i, 0) for i in range(3)) + s
        )
    else:
        expected = 0.0
        for i, k in product(range(3), range(classes)):
            below = mass(i, k) if square else sum(mass(j, k) for j in range(3))
            expected += (1 - (2 * q[i][k] * t[i][k] + s) / (below + s)) / 3
    loss = Dice(alpha, s, square, style)
    assert value(loss, logits=z, target=y, mask=mask) == pytest.approx(expected, rel=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rho=st.floats(0, 1), rows=st.integers(1, 7))
def test_bags_by_loop(seed: int, rho: float, rows: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 3, generator=g, dtype=torch.float64)
    bag = torch.randint(3, (rows,), generator=g)
    mask = torch.rand(rows, generator=g) > 0.2
    mean, share = torch.randn(3, generator=g).double(), torch.rand(3, 3, generator=g).double()
    responses, proportions = [], []
    for b in range(3):
        members = [i for i in range(rows) if mask[i] and bag[i] == b]
        if not members:
            continue
        pred = [float(z[i, 0]) for i in members]
        whole = (sum(pred) / len(pred) - float(mean[b])) ** 2
        each = sum((v - float(mean[b])) ** 2 for v in pred) / len(pred)
        responses.append((1 - rho) * whole + rho * each)
        p = [sum(softmax(z[i].tolist())[c] for i in members) / len(members) for c in range(3)]
        proportions.append(-sum(float(share[b, c]) * math.log(p[c]) for c in range(3)))
    named = {"bag_id": bag, "mask": mask}
    found = value(AggregateResponses(rho), logits=z[:, 0], bag_target=mean[bag], **named)
    assert found == pytest.approx(sum(responses) / max(len(responses), 1), rel=1e-9, abs=1e-12)
    found = value(LabelProportion(), logits=z, bag_proportion=share[bag], **named)
    assert found == pytest.approx(sum(proportions) / max(len(proportions), 1), rel=1e-9, abs=1e-12)


def centred_by_loop(x: list[Row]) -> list[Row]:
    n = len(x)
    d = [[math.dist(a, b) for b in x] for a in x]
    row = [sum(r) for r in d]
    return [
        [
            0.0
            if i == j
            else (row[i] + row[j]) / (n - 2) - d[i][j] - sum(row) / ((n - 1) * (n - 2))
            for j in range(n)
        ]
        for i in range(n)
    ]


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 8),
    attributes=st.integers(1, 3),
    joint=st.booleans(),
    c=st.sampled_from([0.5, 1.0, 2.0]),
)
def test_distance_covariance_by_loop(
    seed: int, rows: int, attributes: int, joint: bool, c: float
) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, 2, generator=g, dtype=torch.float64)
    s = torch.randint(3, (rows, attributes), generator=g).double()
    mask = torch.rand(rows, generator=g) > 0.1
    n = int(mask.sum())
    expected = 0.0
    if n >= 4:
        x, a = z[mask].tolist(), s[mask].tolist()
        parts = [x, *([[v[k]] for v in a] for k in range(attributes))] if joint else [x, a]
        us = [centred_by_loop(part) for part in parts]
        shift = c if joint else 0.0
        for i, j in product(range(n), range(n)):
            expected += math.prod(u[i][j] + shift for u in us)
        expected = expected / (n * (n - 3)) - (c ** len(us) * n / (n - 3) if joint else 0)
    loss = DistanceCovariance(joint, c, probabilities=False)
    found = value(loss, logits=z, sensitive=s, mask=mask)
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 8), top_k=st.integers(2, 4))
def test_profit_aware_bce_by_loop(seed: int, rows: int, top_k: int) -> None:
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(rows, generator=g, dtype=torch.float64)
    profit = torch.randint(-5, 6, (rows,), generator=g).double()  # integers, so that some tie
    lists = torch.randint(2, (rows,), generator=g)
    mask = torch.rand(rows, generator=g) > 0.2
    losses = []
    for b in range(2):
        members = [i for i in range(rows) if mask[i] and lists[i] == b]
        members = sorted(members, key=lambda i: -float(profit[i]))[:top_k]
        total = 0.0
        for a, i in enumerate(members):
            for j in members[a + 1 :]:
                price = math.log10(1 + float(profit[i] - profit[j]))
                total += price * math.log1p(math.exp(-float(z[i] - z[j])))
        if total:
            losses.append(total / len(members))
    found = value(ProfitAwareBCE(top_k), logits=z, profit=profit, list_id=lists, mask=mask)
    assert found == pytest.approx(sum(losses) / max(len(losses), 1), rel=1e-9, abs=1e-12)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), sigma=st.sampled_from([0.5, 2.0]))
def test_kernel_divergences_by_loop(seed: int, rows: int, sigma: float) -> None:
    g = torch.Generator().manual_seed(seed)
    x, y, h = torch.randn(3, rows, 2, generator=g, dtype=torch.float64)
    mask = torch.rand(rows, generator=g) > 0.2
    named = {"features": x, "reference": y, "estimate": h, "mask": mask}
    n = int(mask.sum())
    losses = (CSDivergence(sigma), CSMutualInformation(sigma), KdeKL(sigma))
    found = [value(loss, **named) for loss in losses]
    if not n:
        assert found == [0, 0, 0]
        return

    def gram(a: Tensor, b: Tensor) -> list[Row]:
        pairs = [(p.tolist(), q.tolist()) for p in a[mask] for q in b[mask]]
        flat = [math.exp(-(math.dist(p, q) ** 2) / (2 * sigma**2)) for p, q in pairs]
        return [flat[i * n : (i + 1) * n] for i in range(n)]

    k, own, est, cross = gram(x, x), gram(y, y), gram(h, h), gram(h, y)
    span = range(n)

    def bits(m: list[Row]) -> float:
        rows = (sum(k[i][j] * m[i][j] for j in span) / sum(v**2 for v in k[i]) for i in span)
        return math.log2(sum(rows))

    divergence = bits(own) + bits(est) - 2 * bits(cross)
    both = math.log2(sum(k[i][j] * own[i][j] for i in span for j in span) / n**2)
    apart = math.log2(sum(map(sum, k)) * sum(map(sum, own)) / n**4)
    mixed = math.log2(sum(sum(k[i]) * sum(own[i]) for i in span) / n**3)
    kde = sum(math.log(sum(own[i]) / sum(cross[j][i] for j in span)) for i in span) / n
    expected = [divergence, both + apart - 2 * mixed, kde]
    assert found == pytest.approx(expected, rel=1e-8, abs=1e-9)
    same = named | {"estimate": y}
    assert [value(losses[i], **same) for i in (0, 2)] == pytest.approx([0, 0], abs=1e-9)


def test_kde_kl_is_least_at_the_rows_of_the_reference_and_not_at_a_constant() -> None:
    y = torch.tensor([[-3.0], [-1.0], [0.0], [1.5], [4.0]], dtype=torch.float64)
    best = value(KdeKL(), estimate=y.flip(0), reference=y)
    assert best == pytest.approx(0, abs=1e-12)
    constants = [value(KdeKL(), estimate=torch.full_like(y, c), reference=y) for c in range(-4, 5)]
    assert min(constants) > 0.5
    h = torch.zeros_like(y).requires_grad_()  # from a constant, apart again
    with torch.no_grad():
        h += 0.1 * torch.arange(5)[:, None]
    optimizer = torch.optim.Adam([h], lr=0.1)
    for _ in range(300):
        optimizer.zero_grad()
        total = Objective({"x": KdeKL()})(estimate=h, reference=y).total
        total.backward()
        optimizer.step()
    assert float(total) < 0.01


def test_kernel_divergences_of_far_rows_are_finite() -> None:
    """exp(-d^2) of 1e3 is 0 in any float; its logarithm is not."""
    x = (1e3 * torch.randn(5, 2)).requires_grad_()
    y, h = 1e3 * torch.randn(2, 5, 1)
    h.requires_grad_()
    for loss in (CSDivergence(), CSMutualInformation(), KdeKL()):
        record = Objective({"x": loss})(features=x, reference=y, estimate=h)
        assert record.total.isfinite()
        for grad in torch.autograd.grad(record.total, (x, h), allow_unused=True):
            assert grad is None or grad.isfinite().all()


# -- limits ----------------------------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 20))
def test_limits(seed: int, spread: float) -> None:
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(5, 3, generator=g, dtype=torch.float64)
    named = {"logits": z, "target": torch.randint(3, (5,), generator=g)}
    ce = value(CrossEntropy(), **named)
    assert value(ClassBalanced([50, 5, 1], beta=0.0), **named) == pytest.approx(ce)
    assert value(ClassBalanced([7, 7, 7], gamma=2.0), **named) == pytest.approx(
        value(Focal(2.0), **named)
    )
    assert value(LogitAdjustment([7, 7, 7]), **named) == pytest.approx(ce)
    # beta towards 1 is inverse frequency
    w = ClassBalanced([50, 5, 1], beta=1 - 1e-9).class_weight
    assert [w[2] / w[0], w[2] / w[1]] == pytest.approx([50, 5], rel=1e-5)


@pytest.mark.parametrize("score", ["accuracy", "f_beta", "balanced_accuracy", "gmean"])
def test_perfect_and_hopeless_predictions(score: Any) -> None:
    """Confident and right is 0, confident and wrong is 1, with finite gradients at both ends."""
    y = torch.tensor([0, 1, 2, 0])
    right = 60 * F.one_hot(y, 3).float() - 30
    for z, t, expected in (
        (right, y, 0.0),
        (right[:, 0], (y == 0).long(), 0.0),
        (-right[:, 0], (y == 0).long(), 1.0),
    ):
        z = z.clone().requires_grad_()
        total = Objective({"x": AnyLoss(score)})(z, t).total
        total.backward()
        assert total.item() == pytest.approx(expected, abs=1e-6)
        assert z.grad.isfinite().all()
    assert value(Dice(0.0, 1e-6), logits=right[:, 0], target=(y == 0).long()) == pytest.approx(
        0, abs=1e-5
    )


def test_a_score_that_needs_both_classes_is_zero_without() -> None:
    z = torch.randn(3, requires_grad=True)
    for score, target in (
        ("gmean", [1, 1, 1]),
        ("balanced_accuracy", [0, 0, 0]),
        ("f_beta", [0, 0, 0]),
    ):
        total = Objective({"x": AnyLoss(score)})(z, torch.tensor(target)).total
        assert total.item() == 0
        assert torch.count_nonzero(torch.autograd.grad(total, z)[0]) == 0


def test_weights_of_tri_bce() -> None:
    """Without gradient through the weights, a good branch gets none of its own."""
    deep = torch.tensor([3.0, -3.0], dtype=torch.float64, requires_grad=True)
    shallow = torch.tensor([-1.0, 1.0], dtype=torch.float64, requires_grad=True)
    y = torch.tensor([1, 0])
    grads = []
    for detach in (False, True):
        total = Objective({"x": TriBCE(detach)})(
            target=y, logits_deep=deep, logits_shallow=shallow
        ).total
        grads.append(torch.autograd.grad(total, (deep, shallow)))
    mean = F.binary_cross_entropy_with_logits((deep + shallow) / 2, y.double())
    own = torch.autograd.grad(mean, deep)[0]
    torch.testing.assert_close(grads[1][0], own)
    assert not torch.allclose(grads[0][1], grads[1][1])


def test_distance_covariance_sees_dependence() -> None:
    """The square of a symmetric attribute has no correlation with it, and is no secret to dcov."""
    g = torch.Generator().manual_seed(0)
    s = torch.randn(400, generator=g, dtype=torch.float64)
    other = torch.randn(400, generator=g, dtype=torch.float64)
    loss = DistanceCovariance(probabilities=False)
    dependent, independent = (value(loss, logits=x, sensitive=s) for x in (s**2, other))
    assert dependent > 0.1
    assert abs(independent) < 0.02
    # JdCov of two variables is dcov for every c: the mixed terms sum to 0.
    for c in (0.5, 3.0):
        joint = value(DistanceCovariance(True, c, False), logits=s**2, sensitive=s)
        assert joint == pytest.approx(dependent, rel=1e-8)


def test_duplicate_rows_have_finite_gradients() -> None:
    z = torch.zeros(6, 2, requires_grad=True)
    s = torch.tensor([0.0, 1, 0, 1, 1, 0])
    Objective({"x": DistanceCovariance()})(z, sensitive=s).total.backward()
    assert z.grad.isfinite().all()


def test_binary_rows_that_do_not_count_may_hold_anything() -> None:
    mask = torch.tensor([True, False, True])
    for loss in (Dice(), Dice(style="paper"), Dice(alpha=0.5), AnyLoss()):
        z = torch.tensor([2.0, math.inf, 0.5], requires_grad=True)
        t = torch.tensor([1.0, math.nan, 0.0])
        total = Objective({"x": loss})(z, t, mask=mask).total
        expected = value(loss, logits=z[mask].detach(), target=t[mask])
        assert total.item() == pytest.approx(expected, rel=1e-6)
        total.backward()
        assert z.grad.isfinite().all()
        assert z.grad[1] == 0


# -- settings --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ClassBalanced([1, 2], beta=1.0), r"beta must be in \[0, 1\)"),
        (lambda: ClassBalanced([3, 0]), "at least 1"),
        (lambda: LogitAdjustment([3, 0]), "at least 1"),
        (lambda: Dice(smooth=0.0), "smooth > 0"),
        (lambda: Dice(style="both"), "style must be"),
        (lambda: AnyLoss("f1"), "Unknown score 'f1'"),
        (lambda: AnyLoss(beta=0.0), "must be positive"),
        (lambda: AggregateResponses(2.0), r"rho must be in \[0, 1\]"),
        (lambda: DistanceCovariance(c=0.0), "c must be positive"),
        (lambda: ProfitAwareBCE(1), "at least 2"),
        (lambda: KdeKL(0.0), "sigma must be positive"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("key", ["class_balanced", "logit_adjustment", "balanced_softmax"])
def test_counts_must_be_given(key: str) -> None:
    with pytest.raises(ValueError, match="needs the training examples of each class"):
        build_objective(key)(F1, Y1)


def test_constants_are_made_once_and_trainable_after_inference() -> None:
    with torch.inference_mode():
        a = constant((0.25, 4.0), torch.zeros(1))
    assert constant((0.25, 4.0), torch.zeros(1)) is a
    x: Tensor = torch.ones(2, requires_grad=True)
    (x * a).sum().backward()
    assert constant((0.1,), torch.zeros(1, dtype=torch.float64)).item() == 0.1


# -- confident mistakes, one column, soft labels ---------------------------------------------------


@pytest.mark.parametrize("alpha", [0.01, 0.5, 1.0])
@pytest.mark.parametrize("size", [18.0, 40.0, 80.0])
@pytest.mark.parametrize("style", ["repo", "paper"])
def test_dice_of_confident_mistakes_in_float32(alpha: float, size: float, style: Any) -> None:
    """1 - p rounds to 0 from z = 17 on; the share of the label then vanished from the loss."""
    loss = Dice(alpha, style=style)
    wide = torch.tensor([[size, 0.0, -1.0], [0.0, size, 3.0]])
    for z, t in ((torch.tensor([size, -size]), torch.tensor([0, 1])), (wide, torch.tensor([1, 0]))):
        narrow = z.clone().requires_grad_()
        exact = z.double().requires_grad_()
        found, expected = (Objective({"x": loss})(x, t).total for x in (narrow, exact))
        assert found.item() == pytest.approx(expected.item(), rel=1e-5)
        found.backward()
        expected.backward()
        assert narrow.grad is not None
        assert exact.grad is not None
        largest = exact.grad.abs().max()
        assert largest > 0
        torch.testing.assert_close(
            narrow.grad.double() / largest, exact.grad / largest, rtol=1e-4, atol=1e-6
        )


@pytest.mark.parametrize("loss", [Dice(), Dice(style="paper"), Dice(square=False), AnyLoss()])
def test_one_column_is_binary(loss: nn.Module) -> None:
    z, t = B[:, None].clone().requires_grad_(), T.long()
    total = Objective({"x": loss})(z, t).total
    assert total.item() == pytest.approx(value(loss, logits=B, target=t))
    (gradient,) = torch.autograd.grad(total, z)
    assert gradient.abs().max() > 0
    assert value(loss, logits=B[:, None], target=T[:, None]) == pytest.approx(total.item())


@pytest.mark.parametrize("t", [0.2, 0.5, 0.9])
@pytest.mark.parametrize("style", ["repo", "paper"])
@pytest.mark.parametrize("square", [True, False])
def test_soft_labels_are_least_where_p_equals_them(t: float, style: Any, square: bool) -> None:
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    loss = Dice(0.0, 0.1, square, style)
    target = torch.full((2,), t, dtype=torch.float64)
    found = [value(loss, logits=x.logit().expand(2), target=target) for x in p]
    assert float(p[torch.tensor(found).argmin()]) == pytest.approx(t)


def test_anyloss_refuses_soft_labels() -> None:
    """Decisions are sharp: whatever the label, its loss is least at p = 0 or 1."""
    for z, t in ((B, T / 2), (torch.zeros(2, 3), torch.full((2, 3), 1 / 3))):
        with pytest.raises(ValueError, match="must be 0 or 1 here"):
            value(AnyLoss(), logits=z, target=t)


@pytest.mark.parametrize("loss", [Dice(), AnyLoss()])
def test_targets_that_go_with_no_columns(loss: nn.Module) -> None:
    z = torch.zeros(4, 3)
    for target, said in (
        (torch.zeros(4), "class indices"),
        (torch.zeros(4, 2), r"target must be \(N,\) or \(4, 3\)"),
        (torch.full((4,), 3), r"must be in \[0, 3\)"),
    ):
        with pytest.raises(ValueError, match=said):
            loss(z, target)


@pytest.mark.parametrize("size", [30.0, 200.0])
def test_saturated_bags_keep_their_gradient(size: float) -> None:
    """A bag of rows that are all sure of the wrong class: the mean of p is 0 in float32."""
    z = torch.tensor([[size, 0.0, 0.0], [size, 0.0, -3.0]], requires_grad=True)
    named = {"bag_id": torch.tensor([7, 7]), "bag_proportion": torch.tensor([[0.0, 1.0, 0.0]] * 2)}
    total = Objective({"x": LabelProportion()})(logits=z, **named).total
    assert total.item() == pytest.approx(size, rel=1e-3)
    (gradient,) = torch.autograd.grad(total, z)
    torch.testing.assert_close(gradient.sum(0), torch.tensor([1.0, -1.0, 0.0]), atol=1e-5, rtol=0)
