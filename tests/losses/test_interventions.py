# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Policy losses over whole responses, entropy interventions and advantages, against loops."""

from __future__ import annotations

import math
import statistics
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import GSPO, HAPO, PACS, PPOClip, Reinforce, UncertaintyReward
from lightning_losses.losses.policy.advantage import (
    canon_advantage,
    grpo_advantage,
    hapo_advantage,
    rloo_advantage,
)
from lightning_losses.losses.shared.relative_entropy import entropy_scale
from lightning_losses.losses.shared.sequences import sequences
from lightning_losses.weighting import HighEntropyMask, SequenceWeight, Steer

SEEDS = st.integers(0, 1000)


def rows(seed: int, n: int = 12) -> dict[str, Tensor]:
    """Tokens in any order: responses of two prompts, some of which do not count."""
    g = torch.Generator().manual_seed(seed)
    sequence = torch.randint(5, (n,), generator=g)
    log_prob = -torch.rand(n, generator=g, dtype=torch.float64) * 3
    return {
        "log_prob": log_prob.requires_grad_(),
        "old_log_prob": log_prob.detach() + 0.5 * torch.randn(n, generator=g, dtype=torch.float64),
        "advantage": torch.randn(5, generator=g, dtype=torch.float64)[sequence],
        "entropy": torch.rand(n, generator=g, dtype=torch.float64) * 2,
        "reward": (torch.rand(5, generator=g) < 0.5).double()[sequence],
        "sequence_id": sequence,
        "prompt_id": sequence % 2,
        "mask": torch.rand(n, generator=g) < 0.8,
    }


def total(term: nn.Module, named: dict[str, Tensor]) -> Tensor:
    value: Tensor = Objective({"x": term})(**named).total
    return value


def responses(named: dict[str, Tensor]) -> dict[int, list[int]]:
    """Rows that count, by response."""
    found: dict[int, list[int]] = {}
    for i, (s, counts) in enumerate(
        zip(named["sequence_id"].tolist(), named["mask"].tolist(), strict=True)
    ):
        if counts:
            found.setdefault(s, []).append(i)
    return found


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_sequences_by_loop(seed: int) -> None:
    named = rows(seed)
    ids, valid = named["sequence_id"], named["mask"]
    found = sequences(ids, valid)
    groups = responses(named)
    assert int(found.there.sum()) == len(groups)
    sums = found.total(torch.where(valid, named["entropy"], 0))
    picked = found.pick(named["prompt_id"], valid)
    for members in groups.values():
        (slot,) = {int(found.slot[i]) for i in members}
        assert int(found.size[slot]) == len(members)
        assert float(sums[slot]) == pytest.approx(sum(float(named["entropy"][i]) for i in members))
        assert int(picked[slot]) == int(named["prompt_id"][members[0]])
    empty = sequences(ids[:0], valid[:0])
    assert not empty.there.any()


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS)
def test_gspo_by_loop(seed: int) -> None:
    named = rows(seed)
    found = total(Term(GSPO(0.2, 0.28), aggregation=SequenceWeight()), named)
    values, slopes = [], torch.zeros(len(named["mask"]), dtype=torch.float64)
    groups = responses(named)
    for members in groups.values():
        logs = [float(named["log_prob"][i] - named["old_log_prob"][i]) for i in members]
        r, a = math.exp(statistics.fmean(logs)), float(named["advantage"][members[0]])
        values.append(max(-a * r, -a * min(max(r, 0.8), 1.28)))
        held = -a * r < -a * min(max(r, 0.8), 1.28)
        for i in members:
            slopes[i] = 0 if held else -a * r / len(members) / len(groups)
    assert found.item() == pytest.approx(statistics.fmean(values) if values else 0)
    (grad,) = torch.autograd.grad(found, named["log_prob"])
    torch.testing.assert_close(grad, slopes)


@settings(max_examples=25, deadline=None)
@given(seed=SEEDS, baseline=st.sampled_from(["rloo", "grpo", "none"]), weigh=st.booleans())
def test_pacs_by_loop(seed: int, baseline: Any, weigh: bool) -> None:
    named = rows(seed)
    loss = PACS(0.7, baseline=baseline, class_weight="balanced" if weigh else "none")
    groups = responses(named)
    score, right, prompt = {}, {}, {}
    for s, members in groups.items():
        score[s] = 0.7 * sum(
            float(named["log_prob"][i] - named["old_log_prob"][i]) for i in members
        )
        right[s] = bool(named["reward"][members[0]] > 0)
        prompt[s] = int(named["prompt_id"][members[0]])
    values = []
    for s in groups:
        peers = [t for t in groups if prompt[t] == prompt[s]]
        logit = score[s]
        if len(peers) > 1 and baseline == "rloo":
            logit -= statistics.fmean(score[t] for t in peers if t != s)
        elif len(peers) > 1 and baseline == "grpo":
            std = statistics.stdev(score[t] for t in peers)
            logit = (logit - statistics.fmean(score[t] for t in peers)) / (std + 1e-6)
        of_class = sum(right[t] == right[s] for t in peers)
        weight = len(peers) / (2 * of_class) if weigh and of_class < len(peers) else 1.0
        values.append(weight * math.log1p(math.exp(-logit if right[s] else logit)))
    assert total(loss, named).item() == pytest.approx(statistics.fmean(values) if values else 0)


def test_pacs_gradients_of_a_prompt_cancel_under_rloo() -> None:
    named = rows(3, n=30) | {"mask": torch.ones(30, dtype=torch.bool)}
    named["old_log_prob"] = named["log_prob"].detach()
    value = total(PACS(class_weight="none"), named)
    assert value.item() == pytest.approx(math.log(2))
    (grad,) = torch.autograd.grad(value, named["log_prob"])
    for prompt in (0, 1):
        of = sum(
            float(grad[members[0]])
            for members in responses(named).values()
            if int(named["prompt_id"][members[0]]) == prompt
        )
        assert of == pytest.approx(0, abs=1e-12)


def test_relative_entropy_of_the_card() -> None:
    """The largest entropy is at 1, the least at -1, the pivot at 0; what does not count is not."""
    entropy = torch.tensor([0.1, 0.4, 1.0, 2.0, 9.0])
    valid = torch.tensor([True, True, True, True, False])
    h = entropy_scale(entropy, valid, 0.5).place(entropy)
    assert h[0] == -1
    assert h[2] == 0
    assert h[3] == 1
    equal = torch.full((3,), 0.7)
    assert not entropy_scale(equal).place(equal).any()
    nothing = entropy_scale(equal[:0])
    assert nothing.place(equal).isfinite().all()


def test_hapo_without_heterogeneity_is_ppo() -> None:
    named = rows(4)
    flat = total(HAPO(0.2, 0.28, None, alpha=0.0, beta=0.0), named)
    torch.testing.assert_close(flat, total(PPOClip(0.2, 0.28, None), named))


@pytest.mark.parametrize("linear", [False, True])
def test_steer_by_loop(linear: bool) -> None:
    named = rows(5)
    read = ("log_prob", "entropy", "old_log_prob", "advantage")
    given = [named[name].detach() for name in read]
    valid = named["mask"]
    found = Steer(0.8, 1.2, linear=linear)(torch.zeros(12), valid, *given)
    sizes = []
    for lp, h, old, a in zip(*(x.tolist() for x in given), strict=True):
        p = math.exp(lp)
        sizes.append(abs(a / math.exp(old) * p * (1 - p) * (lp + h)))
    kept = [s for s, v in zip(sizes, valid.tolist(), strict=True) if v]
    for weight, s, v in zip(found.tolist(), sizes, valid.tolist(), strict=True):
        if not v:
            assert weight == 0
        elif linear:
            place = (s - min(kept)) / (max(kept) - min(kept))
            assert weight == pytest.approx(1.2 - 0.4 * place)
        else:
            assert weight == pytest.approx(math.exp(math.log(0.8) * s / max(kept)))
    none = Steer(0.8, 1.2, linear=linear)(torch.zeros(12), valid, *given[:3], torch.zeros(12))
    assert none[valid].tolist() == pytest.approx([1.0] * int(valid.sum()))


def test_steer_composes_with_grpo() -> None:
    """The weights multiply what GRPO adds up, and its mean over responses stays."""
    objective = build_objective({"grpo": {"row_weighting": "steer"}})
    named = rows(6)
    weight = objective.terms["grpo"].row_weighting
    given = [named[n].detach() for n in ("log_prob", "entropy", "old_log_prob", "advantage")]
    weights = weight(torch.zeros(12), named["mask"], *given)
    each = Objective({"x": PPOClip(0.2, 0.2, None)}, reduction="none")(**named).total * weights
    means = [statistics.fmean(float(each[i]) for i in m) for m in responses(named).values()]
    assert objective(**named).total.item() == pytest.approx(statistics.fmean(means))


def test_high_entropy_keeps_the_fraction() -> None:
    entropy = torch.arange(10.0).roll(3)
    kept = HighEntropyMask(0.2)(entropy, torch.ones(10, dtype=torch.bool), entropy)
    assert entropy[kept > 0].tolist() == [8, 9] or set(entropy[kept > 0].tolist()) == {8, 9}
    valid = entropy < 6
    kept = HighEntropyMask(0.5)(entropy, valid, entropy)
    assert set(entropy[kept > 0].tolist()) == {3, 4, 5}


def test_reinforce_counts_what_is_above() -> None:
    log_prob = torch.tensor([-1.0, -2.0, -3.0])
    reward = torch.tensor([1.0, 0.05, 0.5])
    assert Reinforce()(log_prob, reward).tolist() == pytest.approx([1.0, 0.1, 1.5])
    assert Reinforce(0.05)(log_prob, reward).tolist() == [1, 0, 3]


def test_an_action_that_cannot_be_is_no_nan() -> None:
    log_prob = torch.tensor([-1.0, -math.inf, -3.0, -1.0], requires_grad=True)
    reward, old = torch.tensor([1.0, 0.0, 0.0, 1.0]), torch.full((4,), -2.0)
    ids = torch.tensor([0, 0, 1, 1])
    for value in (
        Reinforce()(log_prob, reward),
        Reinforce(0.05)(log_prob, reward),
        GSPO()(log_prob, old, torch.ones(4), ids),
    ):
        assert value.isfinite().all()
        (grad,) = torch.autograd.grad(value.sum(), log_prob)
        assert grad.isfinite().all()
    assert value[:2].tolist() == pytest.approx([0, 0], abs=1e-6)  # a response that cannot be
    for baseline in ("rloo", "grpo", "none"):
        value = PACS(baseline=baseline)(log_prob, old, reward, ids, torch.zeros_like(ids))
        (grad,) = torch.autograd.grad(value, log_prob)
        assert value.isfinite()
        assert grad.isfinite().all()


@settings(max_examples=25, deadline=None)
@given(
    st.lists(st.tuples(st.floats(-5, 5, width=32), st.integers(0, 3), st.floats(0, 2, width=32)),
             max_size=12),
    st.sampled_from([0.0, 0.5, 1.0]),
)  # fmt: skip
def test_advantages_by_loop(given_rows: list[tuple[float, int, float]], mu: float) -> None:
    reward = torch.tensor([r for r, _, _ in given_rows], dtype=torch.float64)
    group = torch.tensor([g for _, g, _ in given_rows], dtype=torch.int64)
    metric = torch.tensor([m for _, _, m in given_rows], dtype=torch.float64)
    rloo = rloo_advantage(reward, group).tolist()
    canon = canon_advantage(reward, metric, group, 0.9, 0.1, mu).tolist()
    for i, (r, g, _) in enumerate(given_rows):
        peers = [j for j, (_, other, _) in enumerate(given_rows) if other == g]
        if len(peers) == 1:
            assert rloo[i] == canon[i] == pytest.approx(r)
            continue
        others = [given_rows[j][0] for j in peers if j != i]
        assert rloo[i] == pytest.approx(r - statistics.fmean(others), abs=1e-9)
        ordered = sorted(peers, key=lambda j: given_rows[j][2])
        half = len(peers) // 2
        low, high = (
            statistics.fmean(given_rows[j][0] for j in side)
            for side in (ordered[:half], ordered[half:])
        )
        if i in ordered[half:]:
            expected = mu * (r - 0.9 * low + 0.1) + (1 - mu) * (r - high)
        else:
            expected = mu * (0.9 * r - high - 0.1) + (1 - mu) * (r - low)
        assert canon[i] == pytest.approx(expected, abs=1e-9)


def test_hapo_advantage_falls_back() -> None:
    """One right answer of few tokens among many wrong ones: too large, so GRPO's instead."""
    reward, group = torch.tensor([1.0, 0, 0, 0]), torch.zeros(4, dtype=torch.int64)
    length = torch.tensor([1, 50, 50, 0])
    plain = grpo_advantage(reward, group) * (length > 0)
    assert torch.equal(hapo_advantage(reward, group, length), plain)
    even = hapo_advantage(reward, group, torch.full((4,), 3))
    assert even.tolist() == pytest.approx([3**0.5, *[-(3**-0.5)] * 3], abs=1e-4)


@pytest.mark.parametrize(
    "make",
    [
        lambda: GSPO(2.0),
        lambda: HAPO(pivot=2.0),
        lambda: HAPO(dual_clip=0.5),
        lambda: PACS(0.0),
        lambda: PACS(baseline="mean"),  # type: ignore[arg-type]
        lambda: Steer(0.0),
        lambda: HighEntropyMask(0.0),
        lambda: canon_advantage(torch.zeros(2), torch.zeros(3), torch.zeros(2).long()),
        lambda: hapo_advantage(torch.zeros(2), torch.zeros(2).long(), torch.zeros(3)),
    ],
)
def test_bad_settings(make: Any) -> None:
    with pytest.raises(ValueError, match="must be"):
        make()


def test_a_reward_counts_less_where_two_samples_are_read_differently() -> None:
    g = torch.Generator().manual_seed(0)
    z, w = (torch.randn(5, 4, generator=g, dtype=torch.float64).requires_grad_() for _ in range(2))
    y = torch.tensor([0, 1, 2, 3, 3])
    loss = UncertaintyReward(penalty=0.7)
    values = loss(z, w, y)
    for i in range(5):  # by hand
        p, q = z[i].softmax(0), w[i].softmax(0)
        u = sum(q[k] * (q[k] / p[k]).log() for k in range(4))
        torch.testing.assert_close(values[i], -p[y[i]].log() * (-u).exp() + 0.7 * u)
        torch.testing.assert_close(loss.diagnostics["uncertainty"][i], u.detach())
    assert torch.autograd.gradcheck(lambda a, b: loss(a, b, y), (z, w))
    # Twice the same: cross-entropy, and its gradient but for that of making them agree.
    torch.testing.assert_close(loss(z, z, y), F.cross_entropy(z, y, reduction="none"))
    masked = torch.tensor([[0.0, -torch.inf, 1.0]])
    assert loss(masked, masked, torch.tensor([2])).isfinite().all()
    with pytest.raises(ValueError, match="penalty must be at least 0"):
        UncertaintyReward(-1.0)
