# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Margin control, recommenders, integer programs and sets of segmentations, each against a loop.

Half precision, gradcheck, masks and batches without rows are laws of every loss: test_objective.
"""

from __future__ import annotations

import math
from itertools import permutations, product
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import BinaryCrossEntropy, CrossEntropy, DiceCE
from lightning_losses.losses.classification.margin_control import MarginControl
from lightning_losses.losses.combinatorial.inter_variable_contrastive import (
    InterVariableContrastive,
    mean_hinge,
)
from lightning_losses.losses.recommender.ips_bce import IPSBinaryCrossEntropy
from lightning_losses.losses.recommender.personal_loss import PersonalLoss
from lightning_losses.losses.segmentation.background_aware_ce import BackgroundAwareCE
from lightning_losses.losses.segmentation.energy_distance import EnergyDistance
from lightning_losses.losses.segmentation.sinkhorn import SinkhornDivergence

Row = list[float]


def value(loss: nn.Module | Term, reduction: str = "mean", **named: Any) -> float:
    return Objective({"x": loss}, reduction=reduction)(**named).total.item()


def normal(seed: int, *shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def softmax(row: Row) -> Row:
    e = [math.exp(z - max(row)) for z in row]
    return [v / sum(e) for v in e]


# -- margin control --------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 6),
    classes=st.integers(2, 5),
    per_sample=st.booleans(),
)
def test_margin_control_by_loop(seed: int, rows: int, classes: int, per_sample: bool) -> None:
    z = 2 * normal(seed, rows, classes)
    mask = torch.arange(rows) != seed % (rows + 2)  # of all rows, now and then
    squares = [sum(p * p for p in softmax(row)) for row in z[mask].tolist()]
    expected = math.log1p(sum(squares))
    if per_sample:
        expected = sum(math.log1p(s) for s in squares) / max(len(squares), 1)
    found = value(MarginControl(per_sample), logits=z, mask=mask)
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_margin_control_limits() -> None:
    """Per row it lies between the uniform and the certain prediction; whole, it grows as log B."""
    uniform, certain = torch.zeros(6, 4), torch.tensor([[50.0, 0, 0, 0]]).expand(6, 4)
    for z, square in ((uniform, 0.25), (certain, 1.0)):
        assert value(MarginControl(True), logits=z) == pytest.approx(math.log1p(square))
        assert value(MarginControl(), logits=z) == pytest.approx(math.log1p(6 * square))
    z = normal(0, 5, 4)
    assert value(MarginControl(True), logits=z.repeat(3, 1)) == pytest.approx(
        value(MarginControl(True), logits=z)
    )
    assert value(MarginControl(), logits=z[:1]) == pytest.approx(
        value(MarginControl(True), logits=z[:1])
    )


def test_margin_control_beside_cross_entropy() -> None:
    """The weight of the YAML is the authors' lambda."""
    z, y = normal(1, 4, 5), torch.tensor([0, 4, 2, 1])
    objective = build_objective(["ce", "margin_control"])
    expected = value(CrossEntropy(), logits=z, target=y) + 0.03 * value(MarginControl(), logits=z)
    assert float(objective(z, y).total) == pytest.approx(expected)


# -- recommenders ----------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6), pos=st.sampled_from([1.0, 3.0]))
def test_ips_bce_by_loop(seed: int, rows: int, pos: float) -> None:
    z, w = normal(seed, rows), normal(seed + 1, rows).exp()
    y = torch.arange(rows) % 2
    mask = torch.arange(rows) != seed % (rows + 1)
    total = 0.0
    for i in range(rows):
        if mask[i]:
            p = sigmoid(float(z[i]))
            total -= float(w[i]) * (pos * math.log(p) if y[i] else math.log(1 - p))
    named = {"logits": z, "target": y, "mask": mask, "inverse_propensity": w}
    expected = total / max(int(mask.sum()), 1)  # rows, not weights
    assert value(IPSBinaryCrossEntropy(pos), **named) == pytest.approx(expected, rel=1e-9)


def test_ips_bce_is_unbiased_for_what_is_not_observed() -> None:
    """Every set of observed rows, each with its chance: the mean is the loss over all rows."""
    z, y = normal(0, 3), torch.tensor([1.0, 0, 1]).double()
    chance = [0.2, 0.9, 0.5]
    mean = 0.0
    for seen in product([False, True], repeat=3):
        weight = math.prod(c if s else 1 - c for c, s in zip(chance, seen, strict=True))
        w = 1 / torch.tensor(chance).double()
        loss = Objective({"x": IPSBinaryCrossEntropy()}, reduction="sum")
        named = {"inverse_propensity": w, "mask": torch.tensor(seen)}
        mean += weight * float(loss(z, y, **named).total)
    assert mean == pytest.approx(value(BinaryCrossEntropy(), "sum", logits=z, target=y))


def test_ips_bce_weights_learn_nothing_and_must_be_there() -> None:
    z, y = normal(0, 3).requires_grad_(), torch.tensor([1, 0, 1])
    w = torch.ones(3, requires_grad=True)
    named = {"logits": z, "target": y}
    Objective({"x": IPSBinaryCrossEntropy()})(**named, inverse_propensity=w).total.backward()
    assert w.grad is None
    assert value(IPSBinaryCrossEntropy(), **named, inverse_propensity=w) == pytest.approx(
        value(BinaryCrossEntropy(), **named)
    )
    with pytest.raises(ValueError, match="needs inverse_propensity"):
        Objective({"x": IPSBinaryCrossEntropy()})(**named)


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 4),
    k=st.integers(1, 5),
    temperature=st.sampled_from([0.1, 1.0, 30.0]),
)
def test_personal_loss_by_loop(seed: int, rows: int, k: int, temperature: float) -> None:
    pos, neg = normal(seed, 2, rows, k)
    expected = 0.0
    for p, n in zip(pos.tolist(), neg.tolist(), strict=True):
        losses = [math.log1p(math.exp(b - a)) for a, b in zip(p, n, strict=True)]
        w = softmax([-v / temperature for v in losses])
        expected += sum(a * b for a, b in zip(w, losses, strict=True)) / rows
    found = value(PersonalLoss(temperature), logits_positive=pos, logits_negative=neg)
    assert found == pytest.approx(expected, rel=1e-9)


def test_personal_loss_limits_and_gradient() -> None:
    pos, neg = normal(3, 2, 4, 5)
    losses = torch.nn.functional.softplus(neg - pos)

    def total(temperature: float, pos: Tensor = pos) -> Tensor:
        named = {"logits_positive": pos, "logits_negative": neg}
        return Objective({"x": PersonalLoss(temperature)})(**named).total

    torch.testing.assert_close(total(1e9), losses.mean())  # plain BPR
    torch.testing.assert_close(total(1e-9), losses.amin(1).mean())
    same = {"logits_positive": torch.ones(2, 3), "logits_negative": torch.zeros(2, 3)}
    weights = PersonalLoss().weights(same["logits_negative"] - same["logits_positive"])
    torch.testing.assert_close(weights, torch.full((2, 3), 1 / 3))
    # The gradient is that of the mean draw, each pair with its weight held fixed.
    moved = pos.clone().requires_grad_()
    total(0.1, moved).backward()
    fixed = PersonalLoss(0.1).weights(losses) * -(neg - pos).sigmoid() / 4
    torch.testing.assert_close(moved.grad, fixed)
    with pytest.raises(ValueError, match="a negative for each positive"):
        PersonalLoss()(pos, neg[:, :1])


# -- integer programs ------------------------------------------------------------------------------


def contrast_by_loop(
    z: Row, solutions: list[list[int]], values: Row, t: float, margin: float, a: float, scale: float
) -> float:
    known = [q for q, s in enumerate(solutions) if any(v >= 0 for v in s)]
    if not known:
        return 0.0
    w = softmax([-values[q] / scale for q in known])
    total = 0.0
    for weight, q in zip(w, known, strict=True):
        ones = [v for v, s in zip(z, solutions[q], strict=True) if s == 1]
        zeros = [v for v, s in zip(z, solutions[q], strict=True) if s == 0]
        if not ones:
            continue
        whole = sum(math.exp(v / t) for v in ones + zeros)
        total -= weight * math.log(sum(math.exp(v / t) for v in ones) / whole)
        hinges = [max(0.0, margin - sigmoid(i) + sigmoid(j)) for i in ones for j in zeros]
        total += a * weight * sum(hinges) / max(len(hinges), 1)
    return total


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 10_000),
    variables=st.integers(1, 7),
    known=st.integers(1, 4),
    margin=st.sampled_from([0.0, 0.2, 0.9, 1.0]),
    scale=st.sampled_from([2.0, -1.5]),
)
def test_inter_variable_contrast_by_loop(
    seed: int, variables: int, known: int, margin: float, scale: float
) -> None:
    """Over all pairs, where ours sorts; with variables and solutions that are not there."""
    g = torch.Generator().manual_seed(seed)
    z = normal(seed, 3, variables).round(decimals=1)  # so that some tie
    solutions = torch.randint(-1, 2, (3, known, variables), generator=g)
    solutions[seed % 3, 0] = -1
    values = normal(seed + 1, 3, known)
    mask = torch.tensor([True, True, bool(seed % 2)])
    loss = InterVariableContrastive(0.5, margin, 0.7, scale)
    rows = [
        contrast_by_loop(z[i].tolist(), solutions[i].tolist(), values[i].tolist(), *settings_)
        for i, settings_ in ((i, (0.5, margin, 0.7, scale)) for i in range(3))
        if mask[i]
    ]
    named = {"logits": z, "solutions": solutions, "solution_value": values, "mask": mask}
    assert value(loss, **named) == pytest.approx(sum(rows) / len(rows), rel=1e-9, abs=1e-12)
    named["solutions"] = solutions.double()
    with pytest.raises(ValueError, match=r"write solutions\.long\(\)"):
        value(loss, **named)


def test_inter_variable_contrast_properties() -> None:
    z = normal(0, 1, 5)
    one = torch.ones(1, 1, 5, dtype=torch.int64)
    none = torch.zeros_like(one)
    best = {"solution_value": torch.zeros(1, 1)}
    loss = InterVariableContrastive()
    assert value(loss, logits=z, solutions=one, **best) == 0  # nothing is left to contrast with
    assert value(loss, logits=z, solutions=none, **best) == 0
    assert value(loss, logits=z, solutions=-one, **best) == 0
    # At |z| = 60 and t = 0.1 exp(z / t) is far out of range of any float.
    wide = torch.tensor([[60.0, -60.0, 0.0]], requires_grad=True)
    named = {"solutions": torch.tensor([[[0, 1, 1]]]), **best}
    total = Objective({"x": loss})(wide, **named).total
    total.backward()
    assert total.item() == pytest.approx(600 + 0.01 * (0.9 + 1 + 0.9 + 0.5) / 2, rel=1e-5)
    assert wide.grad.isfinite().all()
    # A solution of far worse value does not count, whichever way is better.
    both = torch.tensor([[[1, 0, 0, 1, 0], [0, 1, 1, 0, 1]]])
    for scale in (1.0, -1.0):
        values = torch.tensor([[0.0, scale * 1e4]])
        sharp = InterVariableContrastive(value_scale=scale)
        named = {"logits": z, "solutions": both, "solution_value": values}
        first = {"logits": z, "solutions": both[:, :1], "solution_value": values[:, :1]}
        assert value(sharp, **named) == pytest.approx(value(sharp, **first))


def test_mean_hinge_gradient_is_that_of_all_pairs() -> None:
    p = normal(5, 2, 6).sigmoid().requires_grad_()
    ones = torch.randint(2, (2, 3, 6), generator=torch.Generator().manual_seed(1)).bool()
    zeros = ~ones
    pairs = (0.4 - p[:, None, :, None] + p[:, None, None, :]).clamp(min=0)
    both = (ones[..., :, None] & zeros[..., None, :]).double()
    expected = (pairs * both).sum((2, 3)) / both.sum((2, 3)).clamp(min=1)
    found = mean_hinge(p, ones, zeros, 0.4)
    torch.testing.assert_close(found, expected)
    a, b = (torch.autograd.grad(x.square().sum(), p)[0] for x in (found, expected))
    torch.testing.assert_close(a, b)


# -- segmentation ----------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    classes=st.integers(1, 4),
    old=st.sampled_from([None, 1, 2]),
    gamma=st.sampled_from([0.0, 1.0, 2.0]),
    threshold=st.sampled_from([0.5, 1.0]),
)
def test_background_aware_ce_by_loop(
    seed: int, classes: int, old: int | None, gamma: float, threshold: float
) -> None:
    old = None if old is not None and old >= max(classes, 2) else old
    g = torch.Generator().manual_seed(seed)
    z = normal(seed, 2, classes, 3, 4)
    y = torch.randint(max(classes, 2), (2, 3, 4), generator=g)
    y[torch.rand(2, 3, 4, generator=g) < 0.2] = 255
    seen = normal(seed + 1, 2, 3, 4).sigmoid()
    mask = torch.tensor([True, bool(seed % 3)])
    losses = []
    for b, i, j in product(range(2), range(3), range(4)):
        label, s = int(y[b, i, j]), float(seen[b, i, j])
        if label == 255 or not mask[b]:
            continue
        row = z[b, :, i, j].tolist()
        p = softmax(row) if classes > 1 else [1 - sigmoid(row[0]), sigmoid(row[0])]
        weight = (1 - (1 if s > threshold else s)) ** gamma if label == 0 else 1.0
        if old is None:
            losses.append(-weight * math.log(p[label]))
        else:
            first = p[0] if label == 0 else sum(p[1:])
            second = sum(p[:old]) if label < old else p[label]
            losses.append(-weight * math.log(first) - math.log(second))
    named = {"logit_map": z, "label_map": y, "old_class_map": seen, "mask": mask}
    expected = sum(losses) / max(len(losses), 1)
    loss = BackgroundAwareCE(old, gamma, threshold, 255)
    assert value(loss, **named) == pytest.approx(expected, rel=1e-9)


def test_background_aware_ce_limits() -> None:
    """No old class anywhere: cross-entropy. Old classes everywhere: background teaches nothing."""
    z, y = normal(0, 2, 3, 4, 4).requires_grad_(), torch.arange(32).reshape(2, 4, 4) % 3
    maps = {"logit_map": z, "label_map": y}
    plain = value(DiceCE(dice_weight=0.0), **maps)
    never = torch.zeros(2, 4, 4, requires_grad=True)
    assert value(BackgroundAwareCE(), **maps, old_class_map=never) == pytest.approx(plain)
    ever = {**maps, "old_class_map": never + 1}
    assert value(BackgroundAwareCE(gamma=0.0), **ever) == pytest.approx(plain)
    total = Objective({"x": BackgroundAwareCE()})(**ever).total
    assert not torch.autograd.grad(total, never, allow_unused=True, retain_graph=True)[0]
    (grad,) = torch.autograd.grad(total, z)
    assert grad.movedim(1, -1)[y == 0].abs().max() == 0
    assert grad.movedim(1, -1)[y != 0].abs().amin(-1).min() > 0
    # With old_classes, such a background pixel may be background or an old class at no cost.
    pixel = {"label_map": torch.zeros(1, 1).long(), "old_class_map": torch.ones(1, 1)}
    row = torch.tensor([[3.0, -1.0, 0.5]]).double()
    either = [
        value(BackgroundAwareCE(2), logit_map=row[:, order, None], **pixel)
        for order in ([0, 1, 2], [1, 0, 2])
    ]
    assert either[0] == pytest.approx(either[1])
    wrt = z.detach()[:1, :, :2].clone().requires_grad_()
    half = {"label_map": y[:1, :2], "old_class_map": normal(2, 1, 2, 4).sigmoid()}
    assert torch.autograd.gradcheck(lambda m: BackgroundAwareCE(2)(m, **half), wrt)
    with pytest.raises(ValueError, match=r"old_class_map must be \(2, 4, 4\)"):
        BackgroundAwareCE()(z, y, never[:1])
    with pytest.raises(ValueError, match="old_classes=3 leaves no new class among 3"):
        BackgroundAwareCE(3)(z, y, never)


# -- sets of segmentations -------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), s=st.integers(1, 4), a=st.integers(1, 4))
def test_energy_distance_by_loop(seed: int, s: int, a: int) -> None:
    x, y = normal(seed, 3, s, 2, 2), normal(seed + 1, 3, a, 2, 2)
    mask = torch.tensor([True, False, True])

    def mean(p: Tensor, q: Tensor) -> float:
        pairs = [math.dist(u.flatten().tolist(), v.flatten().tolist()) for u in p for v in q]
        return sum(pairs) / len(pairs)

    rows = [mean(x[i], y[i]) - mean(x[i], x[i]) / 2 - mean(y[i], y[i]) / 2 for i in (0, 2)]
    found = value(EnergyDistance(), estimate=x, reference=y, mask=mask)
    assert found == pytest.approx(sum(rows) / 2, rel=1e-9)


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), n=st.integers(1, 4), scale=st.sampled_from([0.3, 1.0, 30.0]))
def test_sinkhorn_without_blur_is_the_best_assignment(seed: int, n: int, scale: float) -> None:
    """By trying every one. Between single points nothing is blurred in any case."""
    x, y = scale * normal(seed, 1, n, 3), scale * normal(seed + 1, 1, n, 3)
    cost = torch.cdist(x[0], y[0]).square() / 2
    best = min(sum(float(cost[i, j]) for i, j in enumerate(p)) / n for p in permutations(range(n)))
    found = value(SinkhornDivergence(blur=0.01 * scale), estimate=x, reference=y)
    assert found == pytest.approx(best, rel=2e-3)


def sinkhorn_by_loop(cost: Tensor, temperature: float) -> float:
    """The regularised cost: plain scaling at one temperature until nothing moves."""
    kernel = (-cost / temperature).exp()
    u, v = torch.ones(len(cost)).double(), torch.ones(cost.shape[1]).double()
    for _ in range(500):
        u = 1 / (kernel @ v / cost.shape[1])
        v = 1 / (kernel.T @ u / len(cost))
    return temperature * float(u.log().mean() + v.log().mean())


@settings(max_examples=10, deadline=None)
@given(seed=st.integers(0, 1000), s=st.integers(1, 4), a=st.integers(1, 5))
def test_sinkhorn_with_blur_by_loop(seed: int, s: int, a: int) -> None:
    """Blur of the order of the distances, where the entropy counts."""
    x, y = normal(seed, 1, s, 2, 1), normal(seed + 1, 1, a, 2, 1)
    p, q = x.reshape(s, 2), y.reshape(a, 2)
    pairs = [(torch.cdist(*both).square() / 2) for both in ((p, q), (p, p), (q, q))]
    across, own, other = (sinkhorn_by_loop(cost, 0.8**2) for cost in pairs)
    found = value(SinkhornDivergence(0.8), estimate=x, reference=y)
    # The iterations are at their slowest here: 1e-4 of OT, says the class.
    assert found == pytest.approx(across - own / 2 - other / 2, abs=3e-4 * across)


@pytest.mark.parametrize("key", ["pulaski_energy", "pulaski_sinkhorn"])
def test_set_distances_are_distances_of_sets(key: str) -> None:
    objective = build_objective(key)

    @settings(max_examples=8, deadline=None)
    @given(seed=st.integers(0, 1000), s=st.integers(1, 4), order=st.permutations(range(4)))
    def check(seed: int, s: int, order: list[int]) -> None:
        x, y = normal(seed, 2, s, 5).sigmoid(), normal(seed + 1, 2, 4, 5).sigmoid()

        def distance(a: Tensor, b: Tensor) -> float:
            return float(objective(estimate=a, reference=b).total)

        assert distance(x, y) > 0
        assert distance(y, x) == pytest.approx(distance(x, y), rel=1e-4)
        assert distance(x, y[:, order]) == pytest.approx(distance(x, y), rel=1e-4)
        assert distance(x, x.clone()) == pytest.approx(0, abs=1e-7)
        assert distance(y, y[:, order]) == pytest.approx(0, abs=1e-7)

    check()


@pytest.mark.parametrize("key", ["pulaski_energy", "pulaski_sinkhorn"])
def test_samples_that_coincide_have_finite_gradients(key: str) -> None:
    """A collapsed model draws one map again and again; annotators may agree to the last pixel."""
    x = torch.full((2, 3, 4, 4), 0.5, requires_grad=True)
    y = torch.ones(2, 2, 4, 4)
    total = build_objective(key)(estimate=x, reference=y).total
    total.backward()
    # All samples are 2 away from all annotations: 2, and its square over 2.
    assert total.item() == pytest.approx(2.0, rel=1e-4)
    assert x.grad.isfinite().all()
    assert (x.grad < 0).all()  # towards the annotations
    exact = y.clone().requires_grad_()
    build_objective(key)(estimate=exact, reference=y).total.backward()
    assert exact.grad.abs().max() < 1e-6


def test_energy_distance_of_numbers_is_the_crps() -> None:
    """One annotator and one number: mean |x - y| less half the mean |x - x'|."""
    x, y = torch.tensor([[0.0, 1.0, 4.0]]), torch.tensor([[2.0]])
    expected = (2 + 1 + 2) / 3 - (1 + 4 + 3) * 2 / 9 / 2
    assert value(EnergyDistance(), estimate=x, reference=y) == pytest.approx(expected)


def test_sinkhorn_does_not_pull_samples_to_the_mean() -> None:
    """Samples as spread as the annotators cost less than samples at their mean, at any blur."""
    y = torch.tensor([[[-1.0], [1.0]]])
    for blur in (0.05, 0.5, 2.0):
        loss = SinkhornDivergence(blur)
        spread = value(loss, estimate=y, reference=y)
        assert spread < value(loss, estimate=torch.zeros(1, 2, 1), reference=y)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: SinkhornDivergence(0.0), "blur > 0"),
        (lambda: SinkhornDivergence(iterations=0), "iterations >= 1"),
        (lambda: BackgroundAwareCE(0), "old_classes of at least 1"),
        (lambda: BackgroundAwareCE(threshold=2.0), r"threshold in \[0, 1\]"),
        (lambda: PersonalLoss(0.0), "temperature must be positive"),
        (lambda: IPSBinaryCrossEntropy(-1.0), "positive_weight must be"),
        (lambda: InterVariableContrastive(value_scale=0.0), "value_scale other than 0"),
        (lambda: InterVariableContrastive(margin=2.0), r"margin in \[0, 1\]"),
        (lambda: EnergyDistance()(torch.zeros(2, 3), torch.zeros(2, 0)), "at least one member"),
        (lambda: EnergyDistance()(torch.zeros(2, 3, 4), torch.zeros(2, 3, 5)), "with the same B"),
        (lambda: EnergyDistance()(torch.zeros(2), torch.zeros(2)), "Sets of maps are"),
        (
            lambda: InterVariableContrastive()(
                torch.zeros(2, 3), torch.zeros(2, 1, 4).long(), torch.zeros(2, 1)
            ),
            r"they are \(B, n\)",
        ),
    ],
)
def test_what_is_refused(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
