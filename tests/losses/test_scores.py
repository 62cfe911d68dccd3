# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses on scores of candidates and of a teacher, against loops over rows and classes."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective
from lightning_losses.losses import (
    BinaryKLDistillation,
    CrossEntropy,
    DarkExperience,
    DecoupledKD,
    Dist,
    KnowledgeDistillation,
    MannWhitney,
    MultilabelSoftmax,
    PlackettLuceDistillation,
    SoftTopK,
)
from lightning_losses.losses.retrieval import mann_whitney
from lightning_losses.losses.retrieval.soft_topk import log_soft_topk


def total(loss: nn.Module, **named: Any) -> Tensor:
    value: Tensor = Objective({"loss": loss})(**named).total
    return value


def scores(rows: int = 5, columns: int = 6, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(rows, columns, generator=g, dtype=torch.float64)).requires_grad_()


def softmax(z: list[float]) -> list[float]:
    top = max(z)
    e = [math.exp(x - top) for x in z]
    return [x / sum(e) for x in e]


# ---------------------------------------------------------------- from a teacher


def test_dkd_loop() -> None:
    s, t, y = scores(), scores(seed=1).detach(), torch.tensor([0, 5, 2, 2, 1])
    expected = 0.0
    for row_s, row_t, k in zip(s.tolist(), t.tolist(), y.tolist(), strict=True):
        p, q = softmax([x / 3 for x in row_t]), softmax([x / 3 for x in row_s])
        known = p[k] * math.log(p[k] / q[k]) + (1 - p[k]) * math.log((1 - p[k]) / (1 - q[k]))
        p, q = (softmax([x / 3 for j, x in enumerate(r) if j != k]) for r in (row_t, row_s))
        rest = sum(a * math.log(a / b) for a, b in zip(p, q, strict=True))
        expected += 9 * (0.7 * known + 1.9 * rest) / 5
    value = total(DecoupledKD(0.7, 1.9, 3.0), logits=s, teacher_logits=t, target=y)
    assert value.item() == pytest.approx(expected)


def test_dkd_with_the_teachers_own_weight_is_kd() -> None:
    s, t, y = scores(), scores(seed=1).detach(), torch.tensor([0, 5, 2, 2, 1])
    rest = 1 - (t / 4).softmax(1).gather(1, y[:, None])[:, 0]
    known = DecoupledKD(1.0, 0.0)(s, t, y)
    others = DecoupledKD(0.0, 1.0)(s, t, y)
    torch.testing.assert_close(known + rest * others, KnowledgeDistillation()(s, t))


def test_dkd_of_a_confident_student_is_finite() -> None:
    """The authors' code takes the logarithm of 1 - p, which is 0 in float32."""
    s = torch.tensor([[200.0, 0.0, 1.0], [-torch.inf, 3.0, 0.0]]).requires_grad_()
    t = torch.tensor([[1.0, 0.0, 2.0], [0.0, 9.0, -torch.inf]])
    value = DecoupledKD()(s, t, torch.tensor([0, 1]))[:1]
    (grad,) = torch.autograd.grad(value.sum(), s)
    assert value.isfinite().all()
    assert grad[0].isfinite().all()


def pearson(a: list[float], b: list[float]) -> float:
    a = [x - sum(a) / len(a) for x in a]
    b = [x - sum(b) / len(b) for x in b]
    top = sum(x * y for x, y in zip(a, b, strict=True))
    return top / (math.sqrt(sum(x * x for x in a)) * math.sqrt(sum(x * x for x in b)) + 1e-8)


def test_dist_loop_and_its_degenerate_batches() -> None:
    s, t = scores(), scores(seed=1).detach()
    p, q = s.softmax(1).detach(), t.softmax(1)
    rows = sum(pearson(a, b) for a, b in zip(p.tolist(), q.tolist(), strict=True)) / 5
    columns = sum(pearson(a, b) for a, b in zip(p.t().tolist(), q.t().tolist(), strict=True)) / 6
    value = total(Dist(0.7, 1.3), logits=s, teacher_logits=t)
    assert value.item() == pytest.approx(0.7 * (1 - rows) + 1.3 * (1 - columns))
    flat = torch.zeros(3, 4, requires_grad=True)  # no spread anywhere
    loss = total(Dist(), logits=flat, teacher_logits=torch.randn(3, 4))
    assert loss.item() == 2
    (grad,) = torch.autograd.grad(loss, flat)
    assert not grad.any()


def test_pld_loop() -> None:
    s, t, y = scores(), scores(seed=1).detach().clone(), torch.tensor([0, 5, 2, 2, 1])
    t[0, 1] = t[0, 2]  # a tie goes to the lower index
    expected = 0.0
    for row_s, row_t, k in zip(s.tolist(), t.tolist(), y.tolist(), strict=True):
        order = sorted(range(6), key=lambda j: (j != k, -row_t[j], j))
        w = softmax([x / 2 for x in row_t])
        for r, j in enumerate(order):
            left = sum(math.exp(row_s[i]) for i in order[r:])
            expected += w[j] * (math.log(left) - row_s[j]) / 5
    value = total(PlackettLuceDistillation(2.0), logits=s, teacher_logits=t, target=y)
    assert value.item() == pytest.approx(expected)


def test_pld_of_a_teacher_that_knows_is_cross_entropy() -> None:
    s, y = scores(), torch.tensor([0, 5, 2, 2, 1])
    sure = 1e4 * torch.nn.functional.one_hot(y, 6).double()
    pld = total(PlackettLuceDistillation(), logits=s, teacher_logits=sure, target=y)
    torch.testing.assert_close(pld, total(CrossEntropy(), logits=s, target=y))
    first = PlackettLuceDistillation(weights="uniform", prefix=1)
    torch.testing.assert_close(first(s, sure, y).mean(), pld)


@settings(max_examples=20, deadline=None)
@given(st.floats(-1e4, 1e4), st.integers(0, 1000))
def test_pld_does_not_see_an_offset(offset: float, seed: int) -> None:
    s, t, y = scores(seed=seed).detach(), scores(seed=seed + 1).detach(), torch.tensor([1] * 5)
    loss = PlackettLuceDistillation()
    torch.testing.assert_close(loss(s + offset, t, y), loss(s, t, y), rtol=1e-8, atol=1e-8)


def test_pld_with_masked_classes_is_finite() -> None:
    s = torch.tensor([[1.0, -torch.inf, 0.0, 2.0]]).requires_grad_()
    t = torch.tensor([[1.0, -torch.inf, 0.5, 3.0]])
    value = PlackettLuceDistillation()(s, t, torch.tensor([0])).sum()
    (grad,) = torch.autograd.grad(value, s)
    assert value.isfinite()
    assert grad.isfinite().all()
    kept = [0, 2, 3]
    alone = PlackettLuceDistillation()(s[:, kept], t[:, kept], torch.tensor([0])).sum()
    torch.testing.assert_close(value, alone)


def test_binary_kl_loop() -> None:
    s, t = scores(), scores(seed=1).detach()

    def sigma(x: float) -> float:
        return 1 / (1 + math.exp(-x))

    forms = {True: 0.0, False: 0.0}
    for a, b in zip(s.flatten().tolist(), t.flatten().tolist(), strict=True):
        for normalized in forms:
            p = 0.5 if normalized else sigma(b / 2)
            q = sigma((a - b) / 2) if normalized else sigma(a / 2)
            forms[normalized] += (
                4 / 5 * (p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q)))
            )
    for normalized, expected in forms.items():
        loss = BinaryKLDistillation(2.0, normalized)
        value = total(loss, aux_logits=s, teacher_logits=t)
        assert value.item() == pytest.approx(expected)
    same = total(BinaryKLDistillation(), aux_logits=t, teacher_logits=t)
    assert same.item() == pytest.approx(0, abs=1e-12)


def test_dark_experience_holds_logits_and_labels() -> None:
    now, then, y = scores(), scores(seed=1).detach(), torch.tensor([0, 5, 2, 2, 1])
    expected = 0.5 * torch.nn.functional.mse_loss(now, then)
    named = {"replay_logits": now, "stored_logits": then}
    torch.testing.assert_close(total(DarkExperience(), **named), expected)
    both = total(DarkExperience(0.5, 0.25), **named, replay_target=y)
    torch.testing.assert_close(both, expected + 0.25 * torch.nn.functional.cross_entropy(now, y))
    empty = total(DarkExperience(), replay_logits=now[:0], stored_logits=then[:0])
    assert empty.item() == 0
    assert empty.requires_grad
    with pytest.raises(ValueError, match="replay_target"):
        total(DarkExperience(0.5, 0.25), **named)
    with pytest.raises(ValueError, match="one shape"):
        total(DarkExperience(), replay_logits=now, stored_logits=then[:2])
    with pytest.raises(ValueError, match=r"in \[0, 6\).*-100 to 5"):
        total(DarkExperience(0.5, 0.25), **named, replay_target=torch.tensor([0, 5, -100, 2, 1]))
    gone = torch.arange(6) == 4  # of a class that there is not yet
    masked = {name: z.masked_fill(gone, -torch.inf) for name, z in named.items()}
    value = total(DarkExperience(0.5, 0.25), **masked, replay_target=y)
    (grad,) = torch.autograd.grad(value, now)
    assert value.isfinite()
    assert grad.isfinite().all()


# ---------------------------------------------------------------- of many candidates


@pytest.mark.parametrize("large", [2**22, 10], ids=["whole", "blocks"])
@pytest.mark.parametrize("negatives", ["mean", "sum"])
def test_mann_whitney_loop(large: int, negatives: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mann_whitney, "LARGE", large)
    s = scores(8, 1, seed=3)
    y = torch.tensor([1, 0, 0, 1, 1, 0, 0, 0])
    pos, neg = s[y == 1].flatten().tolist(), s[y == 0].flatten().tolist()
    pairs = [math.log(1 + math.exp((n - p) / 0.5)) for p in pos for n in neg]
    expected = sum(pairs) / (len(pairs) if negatives == "mean" else len(pos))
    loss = MannWhitney(0.5, negatives)
    for logits in (s, s[:, 0]):
        assert total(loss, logits=logits, target=y).item() == pytest.approx(expected)
    assert torch.autograd.gradcheck(lambda x: total(loss, logits=x, target=y), s)


def test_mann_whitney_bounds_the_area_above_the_curve() -> None:
    s = scores(30, 1, seed=4)[:, 0].detach()
    y = (torch.arange(30) % 3 == 0).long()
    above = (s[y == 1][:, None] < s[y == 0]).double().mean()
    assert total(MannWhitney(), logits=s, target=y) / math.log(2) >= above
    assert total(MannWhitney(), logits=s * 0, target=y).item() == pytest.approx(math.log(2))
    for one in (0, 1):  # nothing to compare
        lonely = s.clone().requires_grad_()
        value = total(MannWhitney(), logits=lonely, target=torch.full((30,), one))
        assert value.item() == 0
        assert not torch.autograd.grad(value, lonely)[0].any()
    with pytest.raises(ValueError, match=r"shaped as the logits.*beside logits \(4, 3\)"):
        total(MannWhitney(), logits=torch.randn(4, 3), target=torch.tensor([0, 1, 0, 1]))


HOT = torch.tensor([[1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 0, 0], [0] * 6, [1, 1, 1, 0, 0, 1], [1] * 6])


@pytest.mark.parametrize("others", ["negatives", "all"])
@pytest.mark.parametrize("positives", ["mean", "sum"])
def test_multilabel_softmax_loop(others: Any, positives: Any) -> None:
    s = scores()
    expected = 0.0
    for row, hot in zip(s.tolist(), HOT.tolist(), strict=True):
        each = []
        for j in [j for j in range(6) if hot[j]]:
            rest = [i for i in range(6) if i != j and (others == "all" or not hot[i])]
            each.append(math.log(sum(math.exp(row[i]) for i in [j, *rest])) - row[j])
        expected += sum(each) / (max(1, len(each)) if positives == "mean" else 1) / 5
    value = total(MultilabelSoftmax(others, positives), logits=s, target=HOT)
    assert value.item() == pytest.approx(expected)
    (grad,) = torch.autograd.grad(value, s)
    assert not grad[2].any()


def test_decoupled_softmax_of_one_positive_is_cross_entropy() -> None:
    s, y = scores(), torch.tensor([0, 5, 2, 2, 1])
    hot = torch.nn.functional.one_hot(y, 6)
    expected = torch.nn.functional.cross_entropy(s, y)
    torch.testing.assert_close(total(MultilabelSoftmax(), logits=s, target=hot), expected)
    with pytest.raises(ValueError, match="one_hot"):
        MultilabelSoftmax()(s, y)


def test_soft_topk_memberships_sum_to_k_and_its_gradient_is_exact() -> None:
    s = scores(4, 6, seed=5)
    k = torch.tensor([1, 2, 5, 3])
    member = log_soft_topk(s, k).exp()
    torch.testing.assert_close(member.sum(1), k.double(), rtol=1e-9, atol=0)
    assert torch.autograd.gradcheck(lambda x: log_soft_topk(x, k), s)
    value = total(SoftTopK(3), logits=scores(), target=HOT)
    expected = 0.0
    log_in = log_soft_topk(scores(), torch.full((5,), 3))
    for row, hot in zip(log_in.tolist(), HOT.tolist(), strict=True):
        expected -= sum(x for x, h in zip(row, hot, strict=True) if h) / max(1, sum(hot)) / 5
    assert value.item() == pytest.approx(expected)
    relevant = total(SoftTopK(None), logits=scores(), target=HOT)  # rows of none and all are 0
    assert 0 < relevant.item() < value.item() * 10
    with pytest.raises(ValueError, match="k=6 and 6"):
        total(SoftTopK(6), logits=scores(), target=HOT)


def test_soft_topk_finds_the_border_of_certain_scores_in_float32() -> None:
    """Beside the k that are in, what the others have rounds away: the border is where both meet."""
    s = torch.tensor([[40.0, 30.0, -10.0, -30.0]], requires_grad=True)  # k=2: t = (-30 + 10) / 2
    log_in = log_soft_topk(s, torch.tensor([2]))
    torch.testing.assert_close(log_in, F.logsigmoid(2 * (s - 10)))
    (grad,) = torch.autograd.grad(-log_in[0, 2], s)
    torch.testing.assert_close(grad, torch.tensor([[0.0, 1.0, -1.0, 0.0]]))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_soft_topk_of_any_scores_is_finite(dtype: torch.dtype) -> None:
    s = torch.tensor([[3e4, -3e4, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]], dtype=dtype).requires_grad_()
    hot = torch.tensor([[0, 1, 0, 0], [1, 0, 0, 0]])
    value = total(SoftTopK(2), logits=s, target=hot)
    (grad,) = torch.autograd.grad(value, s)
    assert value.isfinite()
    assert grad.isfinite().all()
