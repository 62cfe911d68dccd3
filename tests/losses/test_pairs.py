# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Pair losses against loops over anchors and pairs, and every way to say what is a pair."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses import Objective
from lightning_losses.losses import (
    CLIP,
    BarlowTwins,
    Circle,
    Contrastive,
    MultiSimilarity,
    NTXent,
    SigLIP,
    SupCon,
    TripletMargin,
)
from lightning_losses.losses.contrastive import barlow_twins as barlow_module
from lightning_losses.losses.shared import pairs as pairs_module
from lightning_losses.losses.shared.mining import Mining, check_mining, mine

Row = list[float]


def unit_rows(features: Tensor) -> Tensor:
    return features / features.norm(dim=-1, keepdim=True)


def similarity(features: Tensor) -> list[Row]:
    x = unit_rows(features)
    return (x @ x.t()).tolist()


def split(y: list[int], a: int) -> tuple[list[int], list[int]]:
    others = [j for j in range(len(y)) if j != a]
    return [j for j in others if y[j] == y[a]], [j for j in others if y[j] != y[a]]


def active_mean(values: list[float]) -> float:
    active = [v for v in values if v > 0]
    return sum(active) / max(1, len(active))


def loop_supcon(s: list[Row], y: list[int], t: float = 0.2, skip: bool = False) -> float:
    values = []
    for a in range(len(y)):
        pos, neg = split(y, a)
        if not pos:
            values += [] if skip else [0.0]
            continue
        total = sum(math.exp(s[a][j] / t) for j in pos + neg)
        values.append(sum(math.log(total) - s[a][p] / t for p in pos) / len(pos))
    return sum(values) / max(1, len(values))


def loop_negatives_only(s: list[Row], y: list[int], t: float = 0.2) -> float:
    values = []
    for a in range(len(y)):
        pos, neg = split(y, a)
        others = sum(math.exp(s[a][j] / t) for j in neg)
        each = [math.log(others + math.exp(s[a][p] / t)) - s[a][p] / t for p in pos]
        values.append(sum(each) / len(each) if each else 0.0)
    return sum(values) / len(values)


def dist(s: float) -> float:
    return math.sqrt(max(0.0, 2 - 2 * s))


def loop_contrastive(s: list[Row], y: list[int]) -> float:
    far, near = [], []
    for a in range(len(y)):
        pos, neg = split(y, a)
        far += [dist(s[a][p]) - 0.2 for p in pos]
        near += [1.3 - dist(s[a][n]) for n in neg]
    return active_mean(far) + active_mean(near)


def loop_triplets(s: list[Row], y: list[int], mining: str = "all") -> float:
    values = []
    for a in range(len(y)):
        pos, neg = split(y, a)
        if mining == "hard" and pos and neg:
            pos = [max(pos, key=lambda j: dist(s[a][j]))]
            neg = [min(neg, key=lambda j: dist(s[a][j]))]
        for p, n in product(pos, neg):
            if mining == "semihard" and not dist(s[a][n]) > dist(s[a][p]):
                continue
            values.append(dist(s[a][p]) - dist(s[a][n]) + 0.3)
    return active_mean(values)


def loop_circle(s: list[Row], y: list[int], m: float = 0.3, g: float = 10.0) -> float:
    values = []
    for a in range(len(y)):
        pos, neg = split(y, a)
        if not pos or not neg:
            continue
        up = sum(math.exp(-g * max(0, 1 + m - s[a][p]) * (s[a][p] - 1 + m)) for p in pos)
        down = sum(math.exp(g * max(0, s[a][n] + m) * (s[a][n] - m)) for n in neg)
        values.append(math.log(1 + up * down))
    return active_mean(values)


LOOPS: dict[str, tuple[nn.Module, Callable[..., float]]] = {
    "supcon": (SupCon(0.2), loop_supcon),
    "supcon skip": (SupCon(0.2, empty="skip"), lambda s, y: loop_supcon(s, y, skip=True)),
    "supcon factor": (SupCon(0.2, 0.1), lambda s, y: 2 * loop_supcon(s, y)),
    "supcon negatives": (SupCon(0.2, denominator="negatives"), loop_negatives_only),
    "contrastive": (Contrastive(0.2, 1.3), loop_contrastive),
    "triplet": (TripletMargin(0.3), loop_triplets),
    "semihard": (TripletMargin(0.3, "semihard"), lambda s, y: loop_triplets(s, y, "semihard")),
    "hard": (TripletMargin(0.3, "hard"), lambda s, y: loop_triplets(s, y, "hard")),
    "circle": (Circle(0.3, 10.0), loop_circle),
}
#: As one writes them.
MINED: dict[str, Mining] = {
    "hard": "hard",
    "hard_negative": "hard_negative",
    "semihard": "semihard",
    "easy_positive": "easy_positive",
    "epsilon": {"epsilon": 0.1},
    "ranges": {"positives": [0.2, 2], "negatives": [0.0, 1.2]},
    "ring": {"negatives": [0.5, 1.4]},
}
#: Pairs, a class of three, a row alone, a duplicate: each branch of the loops is entered.
LABELS = [0, 0, 1, 1, 1, 2, 0, 1]


def batch(seed: int = 0, n: int = len(LABELS)) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(n, 4, generator=g, dtype=torch.float64)
    x[3] = x[2]  # a duplicate of its own class
    return x.requires_grad_()


def total(loss: nn.Module, **named: Any) -> Tensor:
    value: Tensor = Objective({"loss": loss})(**named).total
    return value


@pytest.mark.parametrize("name", LOOPS)
@pytest.mark.parametrize("kept", [None, 2**24, 63])  # one block; similarities kept, or not
def test_loops(name: str, kept: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    if kept is not None:  # two anchors a block of eight columns
        monkeypatch.setattr(pairs_module, "CPU_BLOCK", 16)
        monkeypatch.setattr(pairs_module, "LARGE", kept)
    loss, loop = LOOPS[name]
    features = batch()
    value = total(loss, features=features, target=torch.tensor(LABELS))
    assert value.item() == pytest.approx(loop(similarity(features.detach()), LABELS), rel=1e-9)
    (grad,) = torch.autograd.grad(value, features)
    assert grad.isfinite().all()
    assert grad.abs().max() > 1e-4


@pytest.mark.parametrize("name", LOOPS)
def test_gradients(name: str) -> None:
    features = batch(seed=1)[:6].detach().requires_grad_()
    features.data[3] = features.data[3] + 0.1  # a distance of 0 has no derivative
    loss = LOOPS[name][0]
    if name == "circle":  # its weights are held fixed, so the value's derivative is another
        return
    target = torch.tensor(LABELS[:6])
    assert torch.autograd.gradcheck(lambda f: total(loss, features=f, target=target), features)


def test_circle_holds_its_weights_fixed() -> None:
    features, target = batch(seed=2), torch.tensor(LABELS)
    (ours,) = torch.autograd.grad(total(Circle(), features=features, target=target), features)
    x = unit_rows(features)
    s = x @ x.t()
    same = (target[:, None] == target) & ~torch.eye(len(x), dtype=torch.bool)
    w_pos, w_neg = (1.4 - s).relu().detach(), (s + 0.4).relu().detach()
    values = []
    for a in range(len(x)):
        pos, neg = same[a], target != target[a]
        if pos.any():
            up = (-80 * w_pos[a] * (s[a] - 0.6))[pos].logsumexp(0)
            down = (80 * w_neg[a] * (s[a] - 0.4))[neg].logsumexp(0)
            values.append(torch.nn.functional.softplus(up + down))
    active = [v for v in values if v > 0]
    (theirs,) = torch.autograd.grad(sum(active) / len(active), features)
    torch.testing.assert_close(ours, theirs)


MINERS = {
    "hard": "BatchHardMiner()",
    "hard_negative": "BatchEasyHardMiner('all', 'hard')",
    "semihard": "BatchEasyHardMiner('hard', 'semihard')",
    "easy_positive": "BatchEasyHardMiner()",
    "epsilon": "MultiSimilarityMiner(0.1)",
    "ranges": "PairMarginMiner(0.2, 1.2)",
    "ring": "BatchEasyHardMiner('all', 'all', allowed_neg_range=[0.5, 1.4])",
}


@pytest.mark.parametrize("name", MINERS)
def test_miners_of_pytorch_metric_learning(name: str) -> None:
    """The same pairs as theirs, in a batch with rows that have nobody of their own."""
    miners = pytest.importorskip("pytorch_metric_learning.miners")
    features, target = batch(seed=4, n=14).detach(), torch.tensor([*LABELS, 4, 0, 1, 2, 0, 1])
    x = unit_rows(features)
    same = target[:, None] == target
    pos, neg = same & ~torch.eye(len(x), dtype=torch.bool), ~same
    if name == "ring":  # with "all" theirs does not look at its ranges: by their words, in a loop
        far = torch.cdist(x, x)
        expected = pos, neg & (far >= 0.5) & (far <= 1.4)
    else:
        found = eval(f"miners.{MINERS[name]}", {"miners": miners})(features, target)
        anchors = found[0], found[0] if len(found) == 3 else found[2]
        expected = torch.zeros_like(pos), torch.zeros_like(neg)
        for mask, a, b in zip(expected, anchors, (found[1], found[-1]), strict=True):
            mask[a, b] = True
    ours = mine(check_mining(MINED[name]), x @ x.t(), pos, neg)
    assert torch.equal(ours[0], expected[0])
    assert torch.equal(ours[1], expected[1])
    assert 0 < ours[1].sum() < neg.sum()
    assert ours[0].any()


@pytest.mark.parametrize("epsilon", [float("nan"), -2.0], ids=["nan", "minus_two"])
def test_an_epsilon_that_keeps_no_pair_is_refused(epsilon: float) -> None:
    with pytest.raises(ValueError, match="keeps no pair"):
        SupCon(mining={"epsilon": epsilon})


@pytest.mark.parametrize("name", MINED)
def test_mined_losses(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A mined loss is the loss of what is left, whatever blocks; without pairs it is nothing."""
    features, target = batch(seed=3), torch.tensor(LABELS)
    losses = [SupCon, Contrastive, Circle, NTXent, MultiSimilarity, TripletMargin]
    for kind in losses:
        loss = kind(mining=MINED[name])
        views = features.reshape(4, 2, 4) if kind is NTXent else features
        named = {"features": views} | ({} if kind is NTXent else {"target": target})
        record = Objective({"pairs": loss})(**named)
        (grad,) = torch.autograd.grad(record.total, features)
        assert grad.isfinite().all()
        if not (kind is TripletMargin and name == "semihard"):
            share = float(record.diagnostics["pairs/mined"])
            assert 0 < share < 1
        with monkeypatch.context() as patch:
            patch.setattr(pairs_module, "CPU_BLOCK", 16)
            patch.setattr(pairs_module, "LARGE", 63)
            again = Objective({"pairs": loss})(**named)
        torch.testing.assert_close(again.total, record.total)
        torch.testing.assert_close(torch.autograd.grad(again.total, features)[0], grad)
        for rows, y in ((0, []), (1, [3]), (3, [0, 1, 2]), (3, [1, 1, 1]), (3, [-1, -1, -1])):
            x = torch.zeros(rows, 4, dtype=torch.float16, requires_grad=True)
            y = torch.tensor(y, dtype=torch.int64)
            nothing = total(loss, features=x[:, None].expand(-1, 2, -1)) if kind is NTXent else (
                total(loss, features=x, target=y))  # fmt: skip
            assert nothing.isfinite()
            assert torch.autograd.grad(nothing, x)[0].isfinite().all()


PAIRS = [MultiSimilarity(), *[loss for loss, _ in LOOPS.values()]]


@pytest.mark.parametrize("loss", PAIRS, ids=lambda loss: type(loss).__name__)
def test_the_ways_to_say_what_is_a_pair_agree(loss: nn.Module) -> None:
    features, target = batch(seed=3), torch.tensor(LABELS)
    by_target = total(loss, features=features, target=target)
    hot = torch.nn.functional.one_hot(target, 4)
    torch.testing.assert_close(total(loss, features=features, label_set=hot), by_target)
    mask = target[:, None] == target
    torch.testing.assert_close(total(loss, features=features, pair_mask=mask), by_target)


def test_reference_rows_are_the_only_columns() -> None:
    features, target = batch(seed=3).detach(), torch.tensor(LABELS)
    value = total(SupCon(0.2), features=features[:3], target=target[:3],
                  ref_features=features[3:], ref_target=target[3:])  # fmt: skip
    s = similarity(features)
    expected = []
    for a in range(3):
        pos = [j for j in range(3, 8) if LABELS[j] == LABELS[a]]
        lse = math.log(sum(math.exp(s[a][j] / 0.2) for j in range(3, 8)))
        expected.append(sum(lse - s[a][p] / 0.2 for p in pos) / len(pos))
    assert float(value) == pytest.approx(sum(expected) / 3)


def test_rows_without_label_pair_only_with_their_own_views() -> None:
    g = torch.Generator().manual_seed(0)
    views = torch.randn(4, 2, 3, generator=g, dtype=torch.float64)
    target = torch.tensor([0, 0, -1, -1])
    value = total(SupCon(0.3), features=views, target=target)
    s = similarity(views.reshape(8, 3))
    rows = []
    for a in range(8):
        sample, label = a // 2, int(target[a // 2])
        pos = [j for j in range(8) if j != a and (j // 2 == sample or (label >= 0 and j // 2 < 2))]
        # Labelled rows know no negatives here but there are none: both labelled samples agree.
        lse = math.log(sum(math.exp(s[a][j] / 0.3) for j in pos))
        rows.append(sum(lse - s[a][p] / 0.3 for p in pos) / len(pos))
    assert float(value) == pytest.approx(sum(rows) / 8)


def test_views_are_rows_of_one_target() -> None:
    g = torch.Generator().manual_seed(0)
    views = torch.randn(5, 3, 4, generator=g, dtype=torch.float64)
    for loss in PAIRS:
        rows = total(
            loss, features=views.reshape(15, 4), target=torch.arange(5).repeat_interleave(3)
        )
        torch.testing.assert_close(total(loss, features=views), rows)
    rows = total(SupCon(0.5), features=views)
    torch.testing.assert_close(total(NTXent(0.5), features=views), rows)


def test_nt_xent_is_cross_entropy_among_the_others() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    x = unit_rows(torch.cat([a, b]))
    z = (x @ x.t() / 0.5).fill_diagonal_(-torch.inf)
    expected = torch.nn.functional.cross_entropy(z, torch.arange(8).roll(4))
    torch.testing.assert_close(total(NTXent(0.5), features=a, other_features=b), expected)


def test_clip_is_the_mean_of_both_directions(monkeypatch: pytest.MonkeyPatch) -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(5, 3, generator=g, dtype=torch.float64) for _ in range(2))
    z = 14 * unit_rows(a) @ unit_rows(b).t()
    y = torch.arange(5)
    ce = torch.nn.functional.cross_entropy
    loss = CLIP(14.0).double()
    for block, large in ((2**20, 2**24), (10, 2**24), (10, 7)):
        monkeypatch.setattr(pairs_module, "CPU_BLOCK", block)
        monkeypatch.setattr(pairs_module, "LARGE", large)
        value = total(loss, features=a, other_features=b)
        torch.testing.assert_close(value, (ce(z, y) + ce(z.t(), y)) / 2, rtol=1e-6, atol=0)
    value.backward()
    assert loss.log_scale.grad is not None
    assert loss.log_scale.grad.abs() > 0
    capped, highest = (total(CLIP(k).double(), features=a, other_features=b) for k in (1e4, 100))
    torch.testing.assert_close(capped, highest, rtol=1e-6, atol=0)


def test_siglip_asks_every_pair() -> None:
    g = torch.Generator().manual_seed(0)
    a, b = (torch.randn(4, 3, generator=g, dtype=torch.float64) for _ in range(2))
    s = (unit_rows(a) @ unit_rows(b).t()).tolist()
    expected = 0.0
    for i, j in product(range(4), repeat=2):
        z = 10 * s[i][j] - 10
        expected += math.log(1 + math.exp(-z if i == j else z)) / 4
    value = total(SigLIP().double(), features=a, other_features=b)
    assert float(value) == pytest.approx(expected, rel=1e-6)


def test_barlow_twins_of_whitened_views_is_nothing() -> None:
    g = torch.Generator().manual_seed(0)
    x = torch.randn(64, 5, generator=g, dtype=torch.float64)
    white = (x - x.mean(0)) @ torch.linalg.inv(torch.linalg.cholesky(torch.cov(x.t()))).t()
    value = total(BarlowTwins(), features=white, other_features=white)
    assert float(value) < 1e-3
    flipped = total(BarlowTwins(), features=white, other_features=-white)
    assert float(flipped) == pytest.approx(5 * 4, rel=1e-3)


def test_barlow_twins_gradient_by_hand_is_autograd_s(monkeypatch: pytest.MonkeyPatch) -> None:
    """Block by block, masked rows of NaN, far from 0, one view alone, and twice differentiated."""
    monkeypatch.setattr(barlow_module, "FEWEST", 3)  # 7 rows are blocks of 3, 3 and 1
    monkeypatch.setattr(barlow_module, "CPU_BLOCK", 1)
    g = torch.Generator().manual_seed(0)
    a = 5 + torch.randn(7, 3, generator=g, dtype=torch.float64)
    b = a + torch.randn(7, 3, generator=g, dtype=torch.float64)
    some = torch.tensor([True, False, True, True, True, True, False])
    loss = BarlowTwins(redundancy=0.3, scale=0.7)
    for valid in (None, some):
        x, y = a.clone(), b.clone()
        if valid is not None:
            x[~valid] = torch.nan
        x, y = x.requires_grad_(), y.requires_grad_()
        value, expected = loss(x, y, valid), loss.by_autograd(x, y, valid)
        torch.testing.assert_close(value, expected, rtol=1e-14, atol=0)
        found = torch.autograd.grad(3 * value, (x, y))
        wanted = torch.autograd.grad(3 * expected, (x, y))
        torch.testing.assert_close(found, wanted, rtol=1e-13, atol=1e-16)
        (alone,) = torch.autograd.grad(loss(x.detach(), y, valid), y)
        torch.testing.assert_close(3 * alone, wanted[1], rtol=1e-13, atol=1e-16)
    x, y = a.requires_grad_(), b.requires_grad_()
    assert torch.autograd.gradcheck(loss, (x, y, some), fast_mode=True)
    assert torch.autograd.gradgradcheck(loss, (x, y, some), fast_mode=True)


@pytest.mark.parametrize("loss", PAIRS, ids=lambda loss: type(loss).__name__)
def test_nothing_to_compare_is_a_connected_zero(loss: nn.Module) -> None:
    x = torch.tensor([[0.0, 0.0], [1.0, 0.0], [1.0, 0.0]], requires_grad=True)
    for rows, target in ((0, []), (1, [3]), (3, [0, 1, 2]), (3, [1, 1, 1]), (3, [-1, -1, -1])):
        value = total(loss, features=x[:rows], target=torch.tensor(target, dtype=torch.int64))
        (grad,) = torch.autograd.grad(value, x, allow_unused=rows == 0)
        assert value.isfinite()
        assert grad is None or grad.isfinite().all()
        if len(set(target)) == len(target) and not isinstance(loss, Contrastive):
            assert float(value.detach()) == 0


@pytest.mark.parametrize("loss", [*PAIRS, NTXent()], ids=lambda loss: type(loss).__name__)
def test_a_nan_is_never_a_zero(loss: nn.Module) -> None:
    """Masks of a NaN are False, so that a sum over pairs would forget it (on a GPU nobody asks)."""
    features = batch().detach().clone()
    features[1, 0] = torch.nan
    if isinstance(loss, NTXent):
        value = loss(features.reshape(4, 2, 4))
    else:
        value = loss(features, torch.tensor(LABELS))
    assert value.isnan().any()


def test_errors_say_what_to_pass() -> None:
    x = torch.randn(4, 3)
    with pytest.raises(ValueError, match=r"must know which rows are positives.*label_set"):
        total(SupCon(), features=x)
    with pytest.raises(ValueError, match=r"label_set="):
        SupCon()(x, torch.rand(4))
    with pytest.raises(ValueError, match=r"pair_mask must be \(4, 4\)"):
        total(SupCon(), features=x, pair_mask=torch.ones(4, 3).bool())
    with pytest.raises(ValueError, match=r"ref_features go with ref_target"):
        total(SupCon(), features=x, target=torch.arange(4), ref_features=x)
    with pytest.raises(ValueError, match=r"other_features \(B, D\)"):
        total(NTXent(), features=x)
    with pytest.raises(
        ValueError, match=r"as many columns, got features \(4, 3\), other_features \(4, 2\)"
    ):
        total(CLIP(), features=x, other_features=torch.randn(4, 2))
    with pytest.raises(ValueError, match="positive"):
        SupCon(0.0)
    for wrong in ("hardest", {}, {"epsilon": 0.1, "negatives": [0, 1]}, {"nearest": 1}, 3):
        with pytest.raises(ValueError, match=r"mining must be one of all, hard.*epsilon: 0\.1"):
            TripletMargin(mining=wrong)  # type: ignore[arg-type]
    for ends in ([1.4, 0.5], [0.5], 0.5, ["near", "far"], [2.5, 3], [-1, 0]):
        with pytest.raises(ValueError, match=r"as \[0\.5, 1\.4\]"):
            SupCon(mining={"negatives": ends})


def test_active_share() -> None:
    """What is told of a batch: rows that contribute, or the share of a row's pairs or triplets."""
    x = torch.tensor([[1.0, 0.0], [1.0, 0.1], [0.9, 0.5], [-1.0, 0.0]])
    expected: dict[nn.Module, float] = {
        SupCon(): 1 / 2,
        Circle(): 1 / 2,
        # Row 0: its positive, 0.995, is more than 0.1 above its negative 0.874. Row 1: 0.92.
        MultiSimilarity(): 1 / 4,
        MultiSimilarity(miner_epsilon=None): 1,
        # Of 3 pairs a row: the positive (margin 0), and rows 0, 1 with 2, which is nearer than 0.6.
        Contrastive(0.0, 0.6): (2 / 3 + 2 / 3 + 2 / 3 + 0) / 4,
        # Of 2 triplets a row: that with row 2; row 3 is too far away.
        TripletMargin(0.6): (1 / 2 + 1 / 2) / 4,
        TripletMargin(0.6, mining="hard"): (1 + 1) / 4,
    }
    for loss, share in expected.items():
        objective = Objective({"pairs": loss})
        record = objective(features=x, target=torch.tensor([0, 0, 1, 2]))
        assert float(record.diagnostics["pairs/active"]) == pytest.approx(share), loss
        if not isinstance(loss, Contrastive) and getattr(loss, "miner_epsilon", 1) is not None:
            record = objective(features=x, target=torch.tensor([0, 1, 2, 3]))  # no positives
            mined = (
                {"pairs/mined": 0}
                if isinstance(loss, TripletMargin) and loss.mining != "all"
                else {}
            )
            assert record.diagnostics == {"pairs/active": 0} | mined
            assert float(record.total) == 0
