# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses without labels and losses against a reference policy, against loops."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.losses import (
    CISPO,
    DPO,
    KLEstimator,
    MarginalEntropy,
    PPOClip,
    SparsePO,
    TeacherSymmetricCE,
)
from lightning_losses.providers import EMATeacher


def total(loss: nn.Module, **named: Any) -> Tensor:
    value: Tensor = Objective({"loss": loss})(**named).total
    return value


def normal(*shape: int, seed: int = 0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return (1.5 * torch.randn(*shape, generator=g, dtype=torch.float64)).requires_grad_()


def test_entropy_min_is_minus_the_bonus_and_runs_from_a_head() -> None:
    hidden, head = normal(6, 3), normal(5, 3, seed=1)
    named = {"hidden": hidden, "head_weight": head}
    least = build_objective("entropy_min")(**named).total
    most = build_objective("entropy_bonus")(**named).terms["entropy_bonus"]
    torch.testing.assert_close(least.detach(), -most)
    p = (hidden @ head.t()).softmax(1)
    torch.testing.assert_close(least, -(p * p.log()).sum(1).mean())


def test_marginal_entropy_of_even_and_of_single_use() -> None:
    even = 50 * torch.eye(4, dtype=torch.float64)
    assert total(MarginalEntropy(), logits=even).item() == pytest.approx(-math.log(4))
    assert total(MarginalEntropy(offset=True), logits=even).item() == pytest.approx(0, abs=1e-12)
    one = torch.zeros(3, 4, dtype=torch.float64).index_fill(1, torch.tensor([2]), 1e4)
    one.requires_grad_()
    value = total(MarginalEntropy(offset=True), logits=one)
    assert value.item() == pytest.approx(math.log(4))
    assert torch.autograd.grad(value, one)[0].isfinite().all()
    masked = normal(5, 4)
    keep = torch.tensor([True, False, True, True, False])
    torch.testing.assert_close(
        total(MarginalEntropy(0.3), logits=masked, mask=keep),
        total(MarginalEntropy(0.3), logits=masked[keep]),
    )


def test_teacher_sce_is_both_cross_entropies() -> None:
    s, t = normal(4, 5), normal(4, 5, seed=1).detach()
    ce = nn.functional.cross_entropy
    expected = 0.8 * ce(s, t.softmax(1)) + 0.2 * -(s.softmax(1) * t.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(total(TeacherSymmetricCE(0.2), logits=s, teacher_logits=t), expected)
    hidden = torch.tensor([[0.3, -torch.inf, 1.0]], dtype=torch.float64).requires_grad_()
    value = total(TeacherSymmetricCE(), logits=hidden, teacher_logits=hidden.detach())
    assert value.isfinite()
    assert torch.autograd.grad(value, hidden)[0].isfinite().all()


def test_a_mean_teacher_follows_its_model() -> None:
    """By hand over three steps; the same within one, and after loading what was saved."""
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).double()
    teacher = EMATeacher(model, 0.9)
    objective = Objective({"sce": TeacherSymmetricCE()}, providers={"teacher_logits": teacher})
    x = torch.randn(5, 3, dtype=torch.float64)
    expected = model[0].weight.detach().clone()
    for step in range(3):
        objective.set_step(step)
        for _ in range(2):  # accumulation
            total = objective(logits=model(x), input=x).total
        assert total.requires_grad
        torch.testing.assert_close(teacher.teacher[0].weight, expected)
        with torch.no_grad():
            model[0].weight.add_(step + 1.0)
        expected = 0.9 * expected + 0.1 * model[0].weight.detach()
    assert not teacher.train().teacher.training
    assert not any(p.requires_grad for p in objective.parameters())
    again = EMATeacher(copy.deepcopy(model), 0.9)
    again.load_state_dict(teacher.state_dict())
    torch.testing.assert_close(again({"input": x}), teacher({"input": x}))
    with pytest.raises(ValueError, match="input=x"):
        teacher({})


def test_kl_estimators_agree_on_the_mean() -> None:
    """Of many actions k1 and k3 estimate the divergence, and k2 has its gradient."""
    z, ref = normal(3), normal(3, seed=1).detach()
    log_p, log_ref = z.log_softmax(0), ref.log_softmax(0)
    p = log_p.detach().exp()
    true = (log_p.exp() * (log_p - log_ref)).sum()
    (slope,) = torch.autograd.grad(true, z, retain_graph=True)
    for name in ("k1", "k3"):
        torch.testing.assert_close((p * KLEstimator(name)(log_p, log_ref)).sum(), true.detach())
    for name in ("k2", "k3+"):
        value = (p * KLEstimator(name)(log_p, log_ref)).sum()
        (found,) = torch.autograd.grad(value, z, retain_graph=True)
        torch.testing.assert_close(found, slope)
    far = torch.tensor([-1e4, 0.0], requires_grad=True)
    assert KLEstimator()(far, torch.zeros(2)).isfinite().all()


def test_cispo_on_policy_is_reinforce_and_never_lets_go() -> None:
    z, y, a = normal(4, 3), torch.tensor([0, 1, 2, 0]), normal(4, seed=2).detach()
    old = z.log_softmax(1).gather(1, y[:, None])[:, 0].detach()
    named = {"logits": z, "target": y, "advantage": a}
    (ours,) = torch.autograd.grad(total(CISPO(), **named, old_log_prob=old), z)
    (theirs,) = torch.autograd.grad(total(PPOClip(), **named, old_log_prob=old), z)
    torch.testing.assert_close(ours, theirs)
    (far,) = torch.autograd.grad(total(CISPO(), **named, old_log_prob=old - 3), z)
    assert far.abs().amax(1).min() > 0  # PPO's clip would let rows of positive advantage go


def loop_dpo(log_p: Tensor, ref: Tensor, pair: list[int], chosen: list[bool], e: float) -> float:
    values = []
    for i in sorted(set(pair)):
        gain = {True: 0.0, False: 0.0}
        for row, (p, c) in enumerate(zip(pair, chosen, strict=True)):
            if p == i:
                gain[c] += float(log_p[row] - ref[row])
        if len({c for p, c in zip(pair, chosen, strict=True) if p == i}) < 2:
            continue
        z = 0.3 * (gain[True] - gain[False])
        values.append((1 - e) * math.log(1 + math.exp(-z)) + e * math.log(1 + math.exp(z)))
    return sum(values) / max(1, len(values))


@pytest.mark.parametrize("e", [0.0, 0.2])
def test_dpo_loop(e: float) -> None:
    # Rows of pairs in any order; pair 7 has one side only; ids are no places.
    pair = [5, 7, 5, 2, 2, 5, 2, 7]
    chosen = [True, True, False, False, True, True, True, True]
    log_p, ref = normal(8), normal(8, seed=1).detach()
    ids, sides = torch.tensor(pair), torch.tensor(chosen)
    value = DPO(0.3, e)(log_p, ref, ids, sides)
    assert value.item() == pytest.approx(loop_dpo(log_p.detach(), ref, pair, chosen, e))
    assert torch.autograd.gradcheck(lambda x: DPO(0.3, e)(x, ref, ids, sides), log_p)
    keep = torch.tensor([True] * 6 + [False] * 2)
    shorter = DPO(0.3, e)(log_p[:6], ref[:6], ids[:6], sides[:6])
    torch.testing.assert_close(DPO(0.3, e)(log_p, ref, ids, sides, keep), shorter)


def test_sparse_po_is_dpo_of_masked_tokens() -> None:
    """Masks 1 and 0 are DPO; masks 0 are log 2; the price is that of a pair; any mask by hand."""
    z, ref = normal(6, 4), normal(6, 4, seed=1).detach()
    y = torch.tensor([0, 3, 1, 2, 2, 0])
    sides = {"pair_id": torch.tensor([0, 0, 0, 1, 1, 1]), "chosen": torch.tensor([1, 1, 0] * 2) > 0}
    one, none = torch.ones(6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    named = {"logits": z, "teacher_logits": ref, "target": y, **sides}
    log_p, log_ref = z.log_softmax(1), ref.log_softmax(1)
    gain = (log_p - log_ref).gather(1, y[:, None])[:, 0]
    plain = DPO(0.3)(gain, none, **sides)
    torch.testing.assert_close(total(SparsePO(0.3), **named, reward_mask=one, kl_mask=none), plain)
    off = total(SparsePO(0.3, 0.5, 0.2), **named, reward_mask=none, kl_mask=none)
    assert off.item() == pytest.approx(math.log(2))
    m, k = normal(6, seed=2).abs(), normal(6, seed=3).abs()
    kl = (log_ref.exp() * (log_ref - log_p)).sum(1)
    part = (m * gain + k * kl) * torch.tensor([1, 1, -1] * 2)
    pairs = part.reshape(2, 3).sum(1)
    price = 0.5 * m.sum() + 0.2 * k.sum()
    wanted = nn.functional.softplus(-0.3 * pairs).mean() + price / 2
    found = total(SparsePO(0.3, 0.5, 0.2), **named, reward_mask=m, kl_mask=k)
    torch.testing.assert_close(found, wanted)


def test_dpo_from_hidden_states_needs_no_logits() -> None:
    hidden, head = normal(2, 4, 3), normal(6, 3, seed=1)
    tokens = torch.tensor([[1, 2, 3, 0], [1, 4, -100, -100]])
    named = {
        "ref_log_prob": torch.full((2, 4), -1.0, dtype=torch.float64),
        "pair_id": torch.zeros(2, 4, dtype=torch.int64),
        "chosen": torch.tensor([[True] * 4, [False] * 4]),
        "target": tokens,
    }
    objective = build_objective("dpo")
    value = objective(hidden=hidden, head_weight=head, **named).total
    whole = objective(logits=hidden @ head.t(), **named).total
    torch.testing.assert_close(value, whole)
    (grad,) = torch.autograd.grad(value, hidden)
    assert not grad[1, 2:].any()
    assert grad[0].any()
    nothing = {**named, "target": torch.full((2, 4), -100)}
    empty = objective(hidden=hidden, head_weight=head, **nothing).total
    assert empty.item() == 0
    assert empty.requires_grad


def test_bad_settings_are_named() -> None:
    for make in (
        lambda: DPO(0.0),
        lambda: DPO(0.1, 0.5),
        lambda: KLEstimator("k4"),  # type: ignore[arg-type]
        lambda: MarginalEntropy(0.0),
        lambda: TeacherSymmetricCE(2.0),
        lambda: CISPO(2.0),
    ):
        with pytest.raises(ValueError, match=r"must be|write"):
            make()
