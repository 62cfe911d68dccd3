# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Policy losses, their reductions and the group advantage against obvious loops."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses.policy.advantage import grpo_advantage
from lightning_losses.losses.policy.clip_cov import ClipCov
from lightning_losses.losses.policy.kl_cov import KLCov
from lightning_losses.losses.policy.ppo_clip import PPOClip
from lightning_losses.losses.shared.token_covariance import first, shuffled, token_covariance
from lightning_losses.weighting.sequence import SequenceWeight

B, T, C = 4, 5, 3


def batch(seed: int = 0, on_policy: bool = False, empty: bool = False) -> dict[str, Any]:
    """Responses of 5, 3, 1 and 0 (or 2) tokens, of three actions."""
    g = torch.Generator().manual_seed(seed)
    z = torch.randn(B, T, C, generator=g, dtype=torch.float64)
    y = torch.randint(C, (B, T), generator=g)
    lp = z.log_softmax(-1).gather(-1, y[..., None]).squeeze(-1)
    noise = 0 if on_policy else 0.4 * torch.randn(B, T, generator=g, dtype=torch.float64)
    lengths = torch.tensor([5, 3, 1, 0 if empty else 2])
    return {
        "logits": z.requires_grad_(),
        "target": y,
        "old_log_prob": lp.detach() + noise,
        "advantage": torch.randn(B, generator=g, dtype=torch.float64)[:, None].expand(B, T),
        "mask": torch.arange(T) < lengths[:, None],
        "sequence_id": torch.tensor([7, 3, 9, 1])[:, None].expand(B, T),
    }


def flat(named: dict[str, Any]) -> list[tuple[float, float, float, int]]:
    """(log p, log p_old, A, response) of every token that counts."""
    lp = named["logits"].detach().log_softmax(-1).gather(-1, named["target"][..., None])[..., 0]
    return [
        (float(lp[b, t]), float(named["old_log_prob"][b, t]), float(named["advantage"][b, t]), b)
        for b in range(B)
        for t in range(T)
        if named["mask"][b, t]
    ]


def ppo(lp: float, old: float, a: float, low: float, high: float, dual: float | None) -> float:
    r = math.exp(min(max(lp - old, -20), 20))
    loss = max(-a * r, -a * min(max(r, 1 - low), 1 + high))
    return min(loss, -a * dual) if dual is not None and a < 0 else loss


def total(loss: nn.Module, named: dict[str, Any], **options: Any) -> Tensor:
    return Objective({"x": loss}, **options)(**named).total


# ------------------------------------------------------------------ one number each
@pytest.mark.parametrize(
    ("advantage", "ratio", "loss", "slope"),
    [
        (2.0, 1.5, -2 * 1.28, 0.0),  # too far up already
        (2.0, 0.5, -2 * 0.5, -2 * 0.5),  # pushed back up
        (-2.0, 0.5, 2 * 0.8, 0.0),  # too far down already
        (-2.0, 1.5, 2 * 1.5, 2 * 1.5),
        (-2.0, 4.0, 2 * 3.0, 0.0),  # beyond the dual clip
        (0.0, 4.0, 0.0, 0.0),
    ],
)
def test_numbers_of_the_card(advantage: float, ratio: float, loss: float, slope: float) -> None:
    lp = torch.tensor([-0.3], dtype=torch.float64, requires_grad=True)
    old = lp.detach() - math.log(ratio)
    found = PPOClip(0.2, 0.28, 3.0)(lp, old, torch.tensor([advantage], dtype=torch.float64))
    found.sum().backward()
    assert found.item() == pytest.approx(loss)
    assert lp.grad.item() == pytest.approx(slope, abs=1e-12)


def test_on_policy_it_is_reinforce() -> None:
    named = batch(on_policy=True)
    for loss in (PPOClip(), PPOClip(1.0, 1e6, None), KLCov(1.0, 5.0)):
        value = total(loss, named)
        (found,) = torch.autograd.grad(value, named["logits"])
        lp = named["logits"].log_softmax(-1).gather(-1, named["target"][..., None])[..., 0]
        m = named["mask"]
        plain = -(named["advantage"] * lp * m).sum() / m.sum()
        torch.testing.assert_close(found, torch.autograd.grad(plain, named["logits"])[0])
        assert value.item() == pytest.approx(-float((named["advantage"] * m).sum() / m.sum()))


@pytest.mark.parametrize("gap", [400.0, -400.0])
def test_policies_far_apart_overflow_nothing(gap: float) -> None:
    for loss in (PPOClip(dual_clip=None), ClipCov(), KLCov()):
        lp = torch.tensor([-1.0, -401.0, -1.0], requires_grad=True)
        values = loss(lp, torch.tensor([-1.0, -401.0 + gap, -1.0]), torch.tensor([1.0, -1.0, 2.0]))
        values.sum().backward()
        assert values.isfinite().all()
        assert lp.grad.isfinite().all()


# ------------------------------------------------------------------ by loop
SEEDS = st.integers(0, 1000)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, dual=st.sampled_from([None, 1.2, 3.0]), empty=st.booleans())
def test_reductions_by_loop(seed: int, dual: float | None, empty: bool) -> None:
    named = batch(seed, empty=empty)
    rows = [(ppo(lp, old, a, 0.2, 0.28, dual), b) for lp, old, a, b in flat(named)]
    responses = [[v for v, b in rows if b == i] for i in range(B)]
    responses = [r for r in responses if r]
    assert len(responses) == 4 - empty
    wanted = {
        None: sum(v for v, _ in rows) / len(rows),
        "sequence_mean": statistics.fmean(statistics.fmean(r) for r in responses),
        "sequence_sum": statistics.fmean(sum(r) / 8 for r in responses),
        "sum": sum(v for v, _ in rows) / 8,
    }
    for aggregation, value in wanted.items():
        weighting = None if aggregation is None else SequenceWeight(aggregation, 8.0)  # type: ignore[arg-type]
        term = Term(PPOClip(0.2, 0.28, dual), row_weighting=weighting)
        assert total(term, named).item() == pytest.approx(value, rel=1e-9), aggregation


def covariances(rows: list[tuple[float, float, float, int]]) -> list[float]:
    a, lp = (statistics.fmean(row[i] for row in rows) for i in (2, 0))
    return [(row[2] - a) * (row[0] - lp) for row in rows]


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, ratio=st.floats(0, 1), coefficient=st.floats(0, 3))
def test_kl_cov_by_loop(seed: int, ratio: float, coefficient: float) -> None:
    named = batch(seed)
    rows = flat(named)
    cov = covariances(rows)
    chosen = sorted(range(len(rows)), key=lambda i: -cov[i])[: max(1, int(len(rows) * ratio))]
    values = [
        -a * math.exp(lp - old) + coefficient * abs(lp - old) * (i in chosen)
        for i, (lp, old, a, _) in enumerate(rows)
    ]
    found = total(KLCov(ratio, coefficient), named).item()
    assert found == pytest.approx(statistics.fmean(values), rel=1e-9)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, ratio=st.floats(0, 1), low=st.floats(-1, 0.5))
def test_clip_cov_by_loop(seed: int, ratio: float, low: float) -> None:
    named = batch(seed)
    rows = flat(named)
    values = [ppo(lp, old, a, 0.2, 0.2, None) for lp, old, a, _ in rows]
    pushed = [-a * math.exp(lp - old) == v for v, (lp, old, a, _) in zip(values, rows, strict=True)]
    inside = [low < c < 1 and free for c, free in zip(covariances(rows), pushed, strict=True)]
    loss = ClipCov(ratio, low, 1.0)
    found = total(loss, named, reduction="none")[named["mask"].reshape(-1)].tolist()
    left_out = [f == 0 for f in found]
    assert sum(left_out) == min(sum(inside), max(1, int(ratio * len(rows))))
    for f, v, out, may in zip(found, values, left_out, inside, strict=True):
        assert may or not out
        assert out or f == pytest.approx(v, rel=1e-9)


def test_without_candidates_it_is_ppo_without_dual_clip() -> None:
    named = batch(3)
    a = total(ClipCov(1.0, 1e6, 1e7), named)
    b = total(PPOClip(0.2, 0.2, None), named)
    torch.testing.assert_close(a, b)


def test_the_draw_is_of_the_step_and_fair() -> None:
    """Another at each step, the same after resuming, and no place is drawn more often."""
    rows = torch.ones(10, dtype=torch.bool)
    drawn = torch.stack([first(shuffled(rows, seed), 0.3, rows) for seed in range(2000)])
    assert (drawn.sum(1) == 3).all()
    share = drawn.double().mean(0)  # 600 of 2000 expected, standard deviation 20
    assert (share - 0.3).abs().max() < 0.04
    named = batch(1)
    loss = ClipCov(0.1, -1e6, 1e6)
    objective = Objective({"x": loss}, reduction="none")
    found = []
    for step in (0, 1, 2, 3, 0):
        objective.set_step(step)
        found.append(objective(**named).total.detach())
    assert torch.equal(found[0], found[4])
    assert len({tuple(f.tolist()) for f in found[:4]}) > 1
    state = torch.get_rng_state()
    objective(**named)
    assert torch.equal(state, torch.get_rng_state())


def test_constant_advantages_have_no_covariance() -> None:
    lp = torch.randn(6, dtype=torch.float64)
    assert token_covariance(torch.full((6,), 0.3), lp).abs().max() < 1e-12
    nothing = token_covariance(lp, lp, torch.zeros(6, dtype=torch.bool))
    assert torch.equal(nothing, torch.zeros(6, dtype=torch.float64))


# ------------------------------------------------------------------ advantages
def test_group_advantages_of_the_card() -> None:
    found = grpo_advantage(torch.tensor([1.0, 0, 0, 1]), torch.zeros(4, dtype=torch.int64))
    assert found.tolist() == pytest.approx([0.866024, -0.866024, -0.866024, 0.866024], abs=1e-6)
    rewards, group = torch.tensor([0.1, 0.1, 0.7, 0.1]), torch.tensor([5, 5, -1, 5])
    assert grpo_advantage(rewards, group).tolist() == [0, 0, pytest.approx(0.7), 0]
    assert grpo_advantage(torch.zeros(0), torch.zeros(0, dtype=torch.int64)).shape == (0,)
    with pytest.raises(ValueError, match="sum token rewards"):
        grpo_advantage(torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64))


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 3)), max_size=12), st.booleans()
)
def test_group_advantages_by_loop(rows: list[tuple[float, int]], std: bool) -> None:
    found = grpo_advantage(
        torch.tensor([r for r, _ in rows], dtype=torch.float64),
        torch.tensor([g for _, g in rows], dtype=torch.int64),
        std,
    )
    for (reward, group), a in zip(rows, found.tolist(), strict=True):
        others = [r for r, g in rows if g == group]
        mean = statistics.fmean(others) if len(others) > 1 else 0.0
        scale = 1.0
        if std:
            scale = (statistics.stdev(others) if len(others) > 1 else 1.0) + 1e-6
        assert a == pytest.approx((reward - mean) / scale, rel=1e-6, abs=1e-6)


# ------------------------------------------------------------------ use
@pytest.mark.parametrize("key", ["ppo_clip", "dapo", "grpo", "clip_cov", "kl_cov"])
def test_a_head_gives_the_numbers_of_logits(key: str) -> None:
    """Responses (B, T), shifted by one: the policy's log p from hidden states and a head."""
    named = batch(2)
    del named["logits"]
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(B, T, 4, generator=g, dtype=torch.float64).requires_grad_()
    head = torch.randn(C, 4, generator=g, dtype=torch.float64).requires_grad_()
    objective = build_objective(key)
    a = objective(**named, hidden=hidden, head_weight=head).total
    b = objective(**named, logits=hidden @ head.T).total
    torch.testing.assert_close(a, b)
    for x, y in zip(*(torch.autograd.grad(v, (hidden, head)) for v in (a, b)), strict=True):
        torch.testing.assert_close(x, y)
        assert x.abs().max() > 1e-3


def test_advantages_and_old_policies_get_no_gradient() -> None:
    named = batch(1)
    named["advantage"] = named["advantage"].clone().requires_grad_()
    named["old_log_prob"] = named["old_log_prob"].requires_grad_()
    for key in ("ppo_clip", "grpo", "clip_cov", "kl_cov"):
        build_objective(key)(**named).total.backward()
    assert named["advantage"].grad is None
    assert named["old_log_prob"].grad is None


def test_a_missing_tensor_is_named() -> None:
    named = batch()
    del named["old_log_prob"]
    with pytest.raises(ValueError, match=r"write self\.compute_loss\(\.\.\., old_log_prob="):
        build_objective("ppo_clip")(**named)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: PPOClip(1.5), "clip_low must be in"),
        (lambda: PPOClip(dual_clip=0.5), "dual_clip must be above 1"),
        (lambda: ClipCov(2.0), "ratio must be in"),
        (lambda: ClipCov(cov_low=6.0), "cov_low <= cov_high"),
        (lambda: KLCov(coefficient=-1.0), "coefficient at least 0"),
        (lambda: SequenceWeight("mean"), "Unknown aggregation 'mean'"),  # type: ignore[arg-type]
        (lambda: SequenceWeight(length=0.0), "length must be positive"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
