# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of groups, scores of the confusion matrix, hard mining, memory of earlier tasks."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.losses import AnyLoss, CrossEntropy, Dice, MulticlassMCC
from lightning_losses.metrics import fisher_diagonal
from lightning_losses.penalties import Elastic
from lightning_losses.weighting import KLDRO, GroupDRO


def rows(n: int, classes: int = 3, seed: int = 0) -> tuple[Tensor, Tensor]:
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(n, classes, generator=g, dtype=torch.float64)
    return z.requires_grad_(), torch.randint(classes, (n,), generator=g)


# -- group_dro -------------------------------------------------------------------------------------


@pytest.mark.parametrize("absent", ["zero", "keep"])
def test_group_dro_by_loop(absent: Any) -> None:
    dro = GroupDRO(4, 0.5, [9.0, 5.0, 3.0, 1.0], 2.0, absent=absent).double()
    objective = Objective({"x": Term(CrossEntropy(), row_weighting=dro)})
    q = [0.25] * 4
    for step in range(4):
        objective.set_step(step)
        z, y = rows(7, seed=step)
        # The third group is never in the batch, the fourth only sometimes.
        group = torch.tensor([0, 1, 0, 1, 3 if step % 2 else 0, 1, 1])
        each = F.cross_entropy(z, y, reduction="none")
        mean = [each[group == k].mean().item() if (group == k).any() else 0.0 for k in range(4)]
        grown = [
            q[k] * math.exp(0.5 * (mean[k] + 2 / math.sqrt([9, 5, 3, 1][k]))) for k in range(4)
        ]
        if absent == "zero":
            q = [one / sum(grown) for one in grown]
        else:
            here = [k for k in range(4) if (group == k).any()]
            share = sum(q[k] for k in here) / sum(grown[k] for k in here)
            q = [grown[k] * share if k in here else q[k] for k in range(4)]
        total = objective(z, y, group_id=group).total
        assert float(total) == pytest.approx(
            sum(a * b for a, b in zip(q, mean, strict=True)), rel=1e-12
        )
    dro.commit()
    assert dro.group_weights.tolist() == pytest.approx(q, rel=1e-12)


def test_group_dro_moves_once_a_step_and_not_in_validation() -> None:
    dro = GroupDRO(2, 0.5).double()
    objective = Objective({"x": Term(CrossEntropy(), row_weighting=dro)})
    z, y = rows(6)
    group = torch.tensor([0, 0, 0, 1, 1, 1])
    objective.set_step(0)
    first = objective(z, y, group_id=group).total
    assert torch.equal(first, objective(z, y, group_id=group).total)  # a closure sees one state
    with torch.no_grad():
        objective.eval()(z, y, group_id=group)
    twice = copy.deepcopy(dro)
    objective.train().set_step(1)
    whole = GroupDRO(2, 0.5).double()
    whole(F.cross_entropy(z, y, reduction="none").detach(), torch.ones(6).bool(), group)
    whole.commit()
    torch.testing.assert_close(dro.group_weights, whole.group_weights)
    # A checkpoint holds the state after the step; loading drops what was not yet read.
    fresh = GroupDRO(2, 0.5).double()
    fresh.pending += 1
    fresh.load_state_dict(twice.state_dict())
    torch.testing.assert_close(fresh.group_weights, whole.group_weights)
    assert not fresh.pending.any()


def test_group_dro_at_the_edges() -> None:
    dro = GroupDRO(3)
    assert dro(torch.zeros(0), torch.zeros(0).bool(), torch.zeros(0).long()).shape == (0,)
    nobody = dro(torch.ones(2), torch.zeros(2).bool(), torch.tensor([7, -1]))
    assert nobody.tolist() == [0, 0]  # ids of rows that do not count are nobody's
    dro.commit()
    assert dro.group_weights.tolist() == pytest.approx([1 / 3] * 3)
    with pytest.raises(ValueError, match="num_groups=6"):
        dro(torch.ones(2), torch.ones(2).bool(), torch.tensor([0, 5]))
    with pytest.raises(ValueError, match="group_counts"):
        GroupDRO(3, adjustment=1.0)
    objective = build_objective({"group_dro": {"row_weighting": {"num_groups": 3}}})
    with pytest.raises(ValueError, match="group_id"):
        objective(*rows(3))
    huge = GroupDRO(2, 1.0)  # exp overflows above 88 in float32
    weights = huge(torch.tensor([500.0, 0.0]), torch.ones(2).bool(), torch.tensor([0, 1]))
    assert weights.tolist() == pytest.approx([2.0, 0.0])


@settings(max_examples=30, deadline=None)
@given(
    losses=st.lists(st.floats(0, 5), min_size=3, max_size=3),
    counts=st.lists(st.integers(1, 9), min_size=3, max_size=3),
    alpha=st.floats(0.05, 0.95),
)
def test_greedy_fills_the_share_by_loop(
    losses: list[float], counts: list[int], alpha: float
) -> None:
    dro = GroupDRO(3, group_counts=counts, method="greedy", alpha=alpha).double()
    dro(torch.tensor(losses, dtype=torch.float64), torch.ones(3).bool(), torch.arange(3))
    dro.commit()
    left, q = alpha, [0.0] * 3
    for k in sorted(range(3), key=lambda k: -losses[k]):
        q[k] = min(counts[k] / sum(counts), left) / alpha
        left -= q[k] * alpha
    assert dro.group_weights.tolist() == pytest.approx(q, abs=1e-9)


def test_smoothed_kl_dro_by_loop() -> None:
    dro = KLDRO(0.7, rate=0.25).double()
    u = None
    for step in range(3):
        dro.smoothed.set_step(step)  # type: ignore[union-attr]
        losses = torch.tensor([0.5, 2.0, 1.0 + step, 9.0], dtype=torch.float64)
        valid = torch.tensor([True, True, True, False])
        e = [math.exp(float(v) / 0.7) for v in losses[:3]]
        u = sum(e) / 3 if u is None else 0.75 * u + 0.25 * sum(e) / 3
        found = dro(losses, valid)
        assert found.tolist() == pytest.approx([*(v / u for v in e), 0.0], rel=1e-9)
    assert not list(KLDRO(0.7).state_dict())
    empty = dro(losses[:0], valid[:0])
    assert empty.shape == (0,)


# -- scores ----------------------------------------------------------------------------------------


def hard_counts(z: Tensor, y: Tensor) -> tuple[int, int, int, int]:
    said = (z > 0).tolist()
    cells = [0, 0, 0, 0]
    for yes, label in zip(said, y.tolist(), strict=True):
        cells[(0 if label else 1) if yes else (2 if label else 3)] += 1
    return tuple(cells)  # type: ignore[return-value]


@pytest.mark.parametrize("score", ["mcc", "jaccard", "kappa"])
def test_scores_of_hard_decisions(score: str) -> None:
    g = torch.Generator().manual_seed(1)
    z, y = torch.randn(40, generator=g, dtype=torch.float64), torch.randint(2, (40,), generator=g)
    tp, fp, fn, tn = hard_counts(z, y)
    n = tp + fp + fn + tn
    chance = ((tp + fp) * (tp + fn) + (fn + tn) * (fp + tn)) / n**2
    expected = {
        "mcc": (tp * tn - fp * fn) / math.sqrt((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)),
        "jaccard": tp / (tp + fp + fn),
        "kappa": ((tp + tn) / n - chance) / (1 - chance),
    }[score]
    found = AnyLoss(score, steepness=1e9)(z, y.double())
    assert float(found) == pytest.approx(1 - expected, rel=1e-9)


def test_a_score_of_ones_own() -> None:
    z, y = rows(8)
    own = AnyLoss(lambda tp, fp, fn, tn: tp / (tp + fp + fn), steepness=5.0)
    torch.testing.assert_close(own(z, y), AnyLoss("jaccard", steepness=5.0)(z, y))
    with pytest.raises(ValueError, match="each of 3 columns"):
        AnyLoss(lambda tp, fp, fn, tn: tp.sum())(z, y)


@pytest.mark.parametrize("score", ["mcc", "kappa", "jaccard"])
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_one_class_alone_is_finite(score: str, label: float) -> None:
    z = torch.tensor([400.0, -400.0, 0.1], dtype=torch.float64, requires_grad=True)
    loss = AnyLoss(score, steepness=10.0)(z, torch.full((3,), label, dtype=torch.float64))
    (grad,) = torch.autograd.grad(loss, z)
    assert loss.isfinite()
    assert grad.isfinite().all()


def test_multiclass_mcc_is_the_correlation() -> None:
    from sklearn.metrics import matthews_corrcoef

    z, y = rows(50, 4)
    decided = 1e9 * torch.eye(4, dtype=torch.float64)[z.argmax(1)]
    expected = 1 - matthews_corrcoef(y.numpy(), z.argmax(1).numpy())
    assert float(MulticlassMCC()(decided, y)) == pytest.approx(expected, rel=1e-9)
    # Of two classes it is Matthews' of yes and no, on probabilities.
    binary = torch.randn(9, dtype=torch.float64)
    two = torch.stack([torch.zeros_like(binary), binary], 1)
    torch.testing.assert_close(
        MulticlassMCC()(two, y[:9] % 2), MulticlassMCC()(binary, (y[:9] % 2).double())
    )
    torch.testing.assert_close(
        MulticlassMCC()(two, y[:9] % 2),
        AnyLoss("mcc", steepness=None)(binary, (y[:9] % 2).double()),
    )
    for logits in (1e4 * torch.eye(4, dtype=torch.float64)[[0] * 9], z[:9]):
        leaf = logits.detach().requires_grad_()
        for target in (y[:9], torch.zeros(9).long()):
            loss = MulticlassMCC()(leaf, target)
            (grad,) = torch.autograd.grad(loss, leaf)
            assert 0 <= loss.item() <= 2
            assert grad.isfinite().all()
    assert float(MulticlassMCC()(z[:0], y[:0])) == 0
    assert torch.autograd.gradcheck(lambda x: MulticlassMCC()(x, y[:9]), (z[:9],))


# -- dice with hard negatives ----------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    z=st.lists(st.integers(-3, 3), min_size=1, max_size=9),  # few values: there are ties
    y=st.integers(0, 511),
    ratio=st.sampled_from([0.1, 0.5, 1.0, 1.5, 3.0]),
)
def test_ohem_keeps_exactly_so_many(z: list[int], y: int, ratio: float) -> None:
    target = [y >> i & 1 for i in range(len(z))]
    logits = torch.tensor(z, dtype=torch.float64)
    dice = Dice(ohem=ratio)
    kept = dice.kept(F.logsigmoid(logits)[:, None], torch.tensor(target)[:, None].double())[:, 0]
    order = sorted((i for i in range(len(z)) if not target[i]), key=lambda i: (-z[i], i))
    hard = order[: int(ratio * sum(target) + 1e-9)]
    assert kept.tolist() == [bool(target[i]) or i in hard for i in range(len(z))]
    plain = Dice()
    some = torch.tensor(kept.tolist())
    if some.any():
        torch.testing.assert_close(
            dice(logits, torch.tensor(target).double()),
            plain(logits[some], torch.tensor(target).double()[some]),
        )


def test_ohem_refuses_soft_labels_and_a_negative_ratio() -> None:
    with pytest.raises(ValueError, match="at least 0"):
        Dice(ohem=-1.0)
    with pytest.raises(ValueError, match="0 or 1"):
        Dice(ohem=1.0)(torch.zeros(3), torch.tensor([0.2, 0.5, 1.0]))


# -- memory of earlier tasks -----------------------------------------------------------------------


def net(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 3)).double()


def test_elastic_of_several_tasks_is_their_sum() -> None:
    loss, tasks = Elastic(), []
    for seed in range(3):
        model = net(seed)
        g = torch.Generator().manual_seed(seed)
        fisher = {
            n: torch.rand(p.shape, generator=g, dtype=torch.float64).where(p > 0, 0.0)
            for n, p in model.named_parameters()
        }
        tasks.append(({n: p.detach() for n, p in model.named_parameters()}, fisher))
        loss.remember(model, fisher)
    now = net(7)
    slow = sum(
        0.5 * (fisher[n] * (p - anchor[n]).square()).sum()
        for anchor, fisher in tasks
        for n, p in now.named_parameters()
    )
    torch.testing.assert_close(loss(now), slow)
    for a, b in zip(
        *(torch.autograd.grad(x, list(now.parameters())) for x in (loss(now), slow)), strict=True
    ):
        torch.testing.assert_close(a, b)


def test_elastic_in_a_checkpoint_before_a_task_and_with_a_grown_head() -> None:
    model = net(0)
    objective = Objective({"elastic": Elastic(gamma=0.5)})
    before = objective(module=model).total
    before.backward()  # connected, and nothing
    assert float(before) == 0
    ones = {n: torch.ones_like(p) for n, p in model.named_parameters()}
    objective.terms["elastic"].loss.remember(model, ones)
    grown = copy.deepcopy(model)
    grown[2] = nn.Linear(4, 5).double()
    value = objective(module=grown).total
    parts = [(grown[2].weight[:3] - model[2].weight), grown[2].bias[:3] - model[2].bias]
    torch.testing.assert_close(value, 0.25 * sum(x.square().sum() for x in parts))
    fresh = Objective({"elastic": Elastic(gamma=0.5)})
    fresh.load_state_dict(objective.state_dict())
    assert torch.equal(fresh(module=grown).total, value)
    fresh.terms["elastic"].loss.remember(
        grown, {n: torch.ones_like(p) for n, p in grown.named_parameters()}
    )
    importance = fresh.terms["elastic"].loss.memory["2.bias"][0]
    assert importance.tolist() == [1.5, 1.5, 1.5, 1.0, 1.0]
    shrunk = copy.deepcopy(model)
    shrunk[2] = nn.Linear(4, 2).double()
    with pytest.raises(ValueError, match="only rows may have been added"):
        objective(module=shrunk)
    with pytest.raises(ValueError, match="finite and at least 0"):
        Elastic().remember(model, {"0.bias": torch.full((4,), -1.0)})


@pytest.mark.parametrize("kind", ["true", "empirical", "predicted", "sampled"])
def test_fisher_by_loop(kind: Any) -> None:
    model = net(3)
    g = torch.Generator().manual_seed(0)
    x = torch.randn(5, 3, generator=g, dtype=torch.float64)
    y = torch.randint(3, (5,), generator=g)
    parameters = dict(model.named_parameters())
    torch.manual_seed(11)
    rows = ((model(x[i : i + 1]).log_softmax(1), y[i : i + 1]) for i in range(5))
    total, count = fisher_diagonal(parameters, rows, kind)
    assert count == 5
    torch.manual_seed(11)
    slow = {n: torch.zeros_like(p) for n, p in parameters.items()}
    for i in range(5):
        p = model(x[i]).softmax(0).detach()
        drawn = {"empirical": y[i], "predicted": p.argmax()}.get(kind)
        if kind == "sampled":
            drawn = torch.multinomial(p, 1)[0]
        for label in range(3):
            weight = p[label] if kind == "true" else float(label == drawn)
            grads = torch.autograd.grad(
                model(x[i]).log_softmax(0)[label], list(parameters.values())
            )
            for name, grad in zip(parameters, grads, strict=True):
                slow[name] += weight * grad.square()
    for name in parameters:
        torch.testing.assert_close(total[name], slow[name])


def test_fisher_says_what_it_needs() -> None:
    model = net(3)
    row = model(torch.zeros(2, 3, dtype=torch.float64)).log_softmax(1)
    parameters = dict(model.named_parameters())
    with pytest.raises(ValueError, match="sampled"):
        fisher_diagonal(parameters, [(row, None)], "true")
    with pytest.raises(ValueError, match="pass target"):
        fisher_diagonal(parameters, [(row, None)], "empirical")
