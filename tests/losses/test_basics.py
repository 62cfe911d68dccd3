# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every loss, target, weighting, head, penalty and provider against a loop that is obviously right.

Numbers for one row are worked out by hand from the papers' formulas:
f = [2, 0, -1] with y = 0.
"""

from __future__ import annotations

import functools
import math
from itertools import pairwise
from typing import Any
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_values import F1, G1, Y1, Row, kl, probabilities, value
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.heads import HarmonicHead
from lightning_losses.losses import (
    CompSum,
    CrossEntropy,
    EntropyBonus,
    Focal,
    KnowledgeDistillation,
    LogsumexpPenalty,
    MultiSimilarity,
    OrthogonalProjection,
    StableMax,
    Trades,
)
from lightning_losses.losses.shared.rows_math import kl_divergence, log_softmax, unit
from lightning_losses.penalties import WeightDistribution
from lightning_losses.providers import PGD, FrozenTeacher
from lightning_losses.targets import HLGauss
from lightning_losses.weighting import KLDRO

# -- values worked out by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("loss", "expected"),
    [
        (CompSum(0.0), 0.185122),
        (CompSum(0.5), 0.177266),
        (CompSum(1.0), 0.169846),
        (CompSum(1.5), 0.162834),
        (CompSum(2.0), 0.156205),
        (CompSum(1.7), 0.160138),
        (Focal(2.0), 0.004144),
        (CrossEntropy(0.1), 0.336513),
        (CrossEntropy(), 0.169846),
        (StableMax(), 0.405465),
        (Term(LogsumexpPenalty(), 1e-4), 0.000471),
    ],
)
def test_numbers_of_the_cards(loss: nn.Module, expected: float) -> None:
    assert value(loss) == pytest.approx(expected, abs=1e-6)


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("ce", 0.169846),
        ("comp_sum", 0.169846),
        ("focal", 0.004144),
        ("gce", 0.160138),
        ("logsumexp_penalty", 0.000471),
        ("mae", 0.156205),
        ("stablemax", 0.405465),
        ("sum_exponential", 0.185122),
    ],
)
def test_presets_are_the_numbers_of_the_cards(key: str, expected: float) -> None:
    assert float(build_objective(key)(F1, Y1).total) == pytest.approx(expected, abs=1e-6)


def test_more_numbers_of_the_cards() -> None:
    assert value(Trades(6.0), logits_adv=G1) == pytest.approx(0.568803, abs=1e-6)
    dro = KLDRO(1.0)(torch.tensor([0.0, 1.0]), torch.tensor([True, True]))
    assert dro.tolist() == pytest.approx([2 * 0.268941, 2 * 0.731059], abs=1e-5)
    # r log mean exp(l / r) of [0, 1] at r = 1, from the weights: it is what they descend.
    assert math.log((1 + math.e) / 2) == pytest.approx(0.620115, abs=1e-6)
    rows = torch.tensor([[1.0, 0], [1, 0], [0, 1]])
    # 1 - 1 / (1 + 1e-6) in the counting of the authors
    assert float(OrthogonalProjection()(rows.double(), torch.tensor([0, 0, 1]))) == pytest.approx(
        5e-7, abs=1e-8
    )
    head = HarmonicHead(2, 3, exponent=1.0, eps=1e-4).double()
    head.weight.data = torch.tensor([[1.0, 1], [0, 0], [-1, 2]], dtype=torch.float64)
    z = head(torch.tensor([[1.0, 0.0]], dtype=torch.float64))
    assert value(CrossEntropy(), z) == pytest.approx(0.753777, abs=1e-6)
    hl = HLGauss(-1.0, 1.0, 3, sigma_to_bin_ratio=0.75)  # sigma 0.5
    soft = hl(torch.tensor([0.2], dtype=torch.float64))
    assert soft[0].tolist() == pytest.approx([0.143931, 0.493142, 0.362927], abs=1e-6)
    assert value(Term(CrossEntropy(), target_transform=hl), F1, torch.tensor([0.2]).double()) == (
        pytest.approx(2.244911, abs=1e-6)
    )
    # W = [-1, 1] has kurtosis (n - 1)^2 / n^2 = 1/4: (1/4 - 1.8)^2 = 2.4025
    module = nn.Linear(2, 1, bias=False)
    module.weight.data = torch.tensor([[-1.0, 1.0]])
    penalty = WeightDistribution(kurtosis_rate=1.0, skewness_rate=0.0, skip_first=False)
    assert penalty(module).item() == pytest.approx(2.4025, abs=1e-6)


# -- losses of softmax statistics, by loop ---------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.floats(0.1, 15),
    tau=st.floats(0, 3),
    gamma=st.floats(0, 5),
    eps=st.floats(0, 1),
)
def test_row_losses_by_loop(seed: int, spread: float, tau: float, gamma: float, eps: float) -> None:
    g = torch.Generator().manual_seed(seed)
    z = spread * torch.randn(4, 3, generator=g, dtype=torch.float64)
    y = torch.randint(3, (4,), generator=g)
    alpha = [0.5, 2.0, 1.0]
    want: dict[str, Row] = {
        n: [] for n in ("ce", "smooth", "comp_sum", "focal", "h", "z2", "stable")
    }
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        p = probabilities(row)
        lse = max(row) + math.log(sum(math.exp(v - max(row)) for v in row))
        nll = lse - row[k]
        want["ce"].append(nll)
        want["smooth"].append((1 - eps) * nll + eps / 3 * sum(lse - v for v in row))
        power = tau - 1
        want["comp_sum"].append(nll if abs(power) < 1e-6 else (1 - math.exp(-power * nll)) / power)
        want["focal"].append(alpha[k] * (-math.expm1(-nll)) ** gamma * nll)
        want["h"].append(-sum(-q * math.log(q) for q in p if q))
        want["z2"].append(lse**2)
        s = [v + 1 if v >= 0 else 1 / (1 - v) for v in row]
        want["stable"].append(-math.log(s[k] / sum(s)))
    losses: dict[str, nn.Module] = {
        "ce": CrossEntropy(),
        "smooth": CrossEntropy(eps),
        "comp_sum": CompSum(tau),
        "focal": Focal(gamma, alpha),
        "h": EntropyBonus(),
        "z2": LogsumexpPenalty(),
        "stable": StableMax(),
    }
    for name, loss in losses.items():
        found = Objective({name: loss}, reduction="none")(z, y).total
        torch.testing.assert_close(
            found, torch.tensor(want[name], dtype=torch.float64), rtol=1e-8, atol=1e-9, msg=name
        )


def test_soft_targets_of_cross_entropy() -> None:
    g = torch.Generator().manual_seed(0)
    z, t = torch.randn(5, 3, generator=g), torch.rand(5, 3, generator=g)
    for eps in (0.0, 0.3):
        expected = F.cross_entropy(z, t / t.sum(1, keepdim=True), label_smoothing=eps)
        found = value(CrossEntropy(eps), z, t / t.sum(1, keepdim=True))
        assert found == pytest.approx(float(expected), rel=1e-5)


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
@pytest.mark.parametrize("eps", [0.0, 0.2])
@pytest.mark.parametrize("softcap", [None, 2.0])
def test_class_weights_with_soft_targets_as_torch(
    kernel: str, eps: float, softcap: float | None
) -> None:
    """From logits and from hidden states, beside a term that takes the target as it is."""
    g = torch.Generator().manual_seed(0)
    h, w = (torch.randn(n, 3, generator=g, dtype=torch.float64) for n in (6, 5))
    t = torch.rand(6, 5, generator=g, dtype=torch.float64)
    t = t / t.sum(1, keepdim=True)
    mask = torch.tensor([True, True, False, True, True, True])
    weight = torch.tensor([0.5, 3.0, 1.0, 0.0, 2.0], dtype=torch.float64)
    h.requires_grad_()
    z = h @ w.t()
    z = z if softcap is None else softcap * torch.tanh(z / softcap)
    expected = F.cross_entropy(z[mask], t[mask], weight, label_smoothing=eps)
    plain = F.cross_entropy(z[mask], t[mask])
    terms = {"a": CrossEntropy(eps, weight), "b": CrossEntropy()}
    objective = Objective(terms, kernel=kernel)
    for named in ({"logits": z}, {"hidden": h, "head_weight": w, "softcap": softcap}):
        total = objective(target=t, mask=mask, **named).total
        torch.testing.assert_close(total, expected + plain)
        (found,) = torch.autograd.grad(total, h, retain_graph=True)
        (wanted,) = torch.autograd.grad(expected + plain, h, retain_graph=True)
        torch.testing.assert_close(found, wanted)
    with pytest.raises(ValueError, match="class_weight must be one number for each of 5 classes"):
        Objective({"a": CrossEntropy(class_weight=[1.0, 2.0])})(z, t)


@pytest.mark.parametrize("tau", [0.0, 0.5, 0.9])
def test_comp_sum_below_one_does_not_overflow(tau: float) -> None:
    z = torch.tensor([[-2000.0, 0.0]], requires_grad=True)
    total = Objective({"x": CompSum(tau)})(z, torch.tensor([0])).total
    total.backward()
    assert total.isfinite()
    assert z.grad.isfinite().all()


@pytest.mark.parametrize("gamma", [0.0, 0.3, 1.0, 2.0, 5.0])
def test_focal_of_a_certain_row(gamma: float) -> None:
    """p = 1 to the last bit: a power below 1 has an infinite slope at 0."""
    z = torch.tensor([[200.0, 0.0]], requires_grad=True)
    total = Objective({"x": Focal(gamma)})(z, torch.tensor([0])).total
    total.backward()
    assert total.item() == pytest.approx(0, abs=1e-6)
    assert z.grad.isfinite().all()


def test_stablemax_at_zero_has_the_slope_of_s() -> None:
    """s'(0) = 1 from both sides; abs and sign would have given 0."""
    z = torch.zeros(1, 3, dtype=torch.float64, requires_grad=True)
    Objective({"x": StableMax()})(z, Y1).total.backward()
    assert z.grad[0].tolist() == pytest.approx([1 / 3 - 1, 1 / 3, 1 / 3])


# -- losses of two distributions -------------------------------------------------------------------


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), t=st.floats(0.5, 8), beta=st.floats(0, 10))
def test_distillation_and_trades_by_loop(seed: int, t: float, beta: float) -> None:
    g = torch.Generator().manual_seed(seed)
    z, other = torch.randn(2, 4, 3, generator=g, dtype=torch.float64)
    y = torch.randint(3, (4,), generator=g)
    kd, trades = [], []
    for a, b, k in zip(z.tolist(), other.tolist(), y.tolist(), strict=True):
        kd.append(t * t * kl(probabilities([v / t for v in b]), probabilities([v / t for v in a])))
        p = probabilities(a)
        trades.append(-math.log(p[k]) + beta * kl(p, probabilities(b)))
    found = value(KnowledgeDistillation(t), z, None, teacher_logits=other)
    assert found == pytest.approx(sum(kd) / 4, rel=1e-8, abs=1e-10)
    found = value(Trades(beta), z, y, logits_adv=other)
    assert found == pytest.approx(sum(trades) / 4, rel=1e-8)


def test_teacher_gets_no_gradient_and_may_forbid_classes() -> None:
    z = torch.tensor([[1.0, 2.0, 0.5]], requires_grad=True)
    teacher = torch.tensor([[0.5, -math.inf, 1.0]], requires_grad=True)
    total = Objective({"kd": KnowledgeDistillation()})(z, teacher_logits=teacher).total
    total.backward()
    assert total.isfinite()
    assert teacher.grad is None
    assert z.grad.isfinite().all()
    both = torch.tensor([[0.5, -math.inf, 1.0]], requires_grad=True)
    total = Objective({"kd": KnowledgeDistillation()})(both, teacher_logits=teacher).total
    total.backward()
    assert total.isfinite()
    assert both.grad.isfinite().all()


def test_trades_has_gradient_through_both() -> None:
    a, b = F1.clone().requires_grad_(), G1.clone().requires_grad_()
    Objective({"x": Trades()})(a, Y1, logits_adv=b).total.backward()
    assert a.grad.abs().max() > 0
    assert b.grad.abs().max() > 0


# -- losses across rows ----------------------------------------------------------------------------


def cosine(a: Row, b: Row) -> float:
    def dot(x: Row, y: Row) -> float:
        return sum(u * v for u, v in zip(x, y, strict=True))

    return dot(a, b) / math.sqrt(dot(a, a) * dot(b, b))


def opl_by_loop(x: list[Row], y: list[int], gamma: float, absolute: bool) -> float:
    same, across = [], []
    for i in range(len(x)):
        for j in range(len(x)):
            if i == j:
                continue
            c = cosine(x[i], x[j])
            if y[i] == y[j]:
                same.append(c)
            else:
                across.append(abs(c) if absolute else c)
    return 1 - sum(same) / (len(same) + 1e-6) + gamma * sum(across) / (len(across) + 1e-6)


def multi_similarity_by_loop(
    x: list[Row], y: list[int], alpha: float, beta: float, base: float, epsilon: float | None
) -> Row:
    out = []
    for i in range(len(x)):
        s = [cosine(x[i], x[j]) for j in range(len(x))]
        pos = [s[j] for j in range(len(x)) if j != i and y[j] == y[i]]
        neg = [s[j] for j in range(len(x)) if y[j] != y[i]]
        if epsilon is not None:
            low, high = min(pos, default=math.inf), max(neg, default=-math.inf)
            pos, neg = [v for v in pos if v - epsilon < high], [v for v in neg if v + epsilon > low]
            if not pos or not neg:
                out.append(0.0)
                continue
        up = math.log1p(sum(math.exp(-alpha * (v - base)) for v in pos)) / alpha
        down = math.log1p(sum(math.exp(beta * (v - base)) for v in neg)) / beta
        out.append(up + down)
    return out


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 8),
    classes=st.integers(1, 4),
    masked=st.booleans(),
    epsilon=st.sampled_from([None, 0.1, 0.5]),
    absolute=st.booleans(),
)
def test_pair_losses_by_loop(
    seed: int, rows: int, classes: int, masked: bool, epsilon: float | None, absolute: bool
) -> None:
    g = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 3, generator=g, dtype=torch.float64)
    y = torch.randint(classes, (rows,), generator=g)
    mask = torch.rand(rows, generator=g) > 0.3 if masked else torch.ones(rows, dtype=torch.bool)
    kept, labels = x[mask].tolist(), y[mask].tolist()
    opl = Objective({"x": OrthogonalProjection(0.7, absolute)})
    found = float(opl(features=x, target=y, mask=mask).total)
    expected = opl_by_loop(kept, labels, 0.7, absolute) if kept else 0.0
    assert found == pytest.approx(expected, rel=1e-9)
    ms = Objective({"x": MultiSimilarity(2.0, 10.0, 0.4, epsilon)})
    found = float(ms(features=x, target=y, mask=mask).total)
    expected = sum(multi_similarity_by_loop(kept, labels, 2.0, 10.0, 0.4, epsilon)) / max(
        len(kept), 1
    )
    assert found == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_pair_losses_of_zero_features() -> None:
    """A dead network's features: no NaN, and no gradient of 1e12."""
    for loss in (OrthogonalProjection(), MultiSimilarity(miner_epsilon=None)):
        x = torch.zeros(4, 3, requires_grad=True)
        Objective({"x": loss})(features=x, target=torch.tensor([0, 0, 1, 1])).total.backward()
        assert x.grad.isfinite().all()
        assert x.grad.abs().max() < 100


def test_vectors() -> None:
    assert unit(torch.tensor([[3.0, 4.0], [0.0, 0.0]])).tolist() == [
        [pytest.approx(0.6), pytest.approx(0.8)],
        [0, 0],
    ]
    log_p = log_softmax(torch.tensor([[0.0, -math.inf]]))
    assert log_p.isfinite().all()
    assert kl_divergence(log_p, log_p).item() == 0


# -- target, weighting, head, penalty --------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    target=st.floats(-3, 3), bins=st.integers(1, 12), ratio=st.floats(0.3, 3), low=st.floats(-2, 0)
)
def test_hl_gauss_by_loop(target: float, bins: int, ratio: float, low: float) -> None:
    high = 1.5
    sigma = ratio * (high - low) / bins
    x = min(max(target, low), high)
    edges = [low + (high - low) * i / bins for i in range(bins + 1)]
    cdf = [0.5 * (1 + math.erf((e - x) / (sigma * math.sqrt(2)))) for e in edges]
    expected = [(b - a) / (cdf[-1] - cdf[0]) for a, b in pairwise(cdf)]
    found = HLGauss(low, high, bins, ratio)(torch.tensor([target], dtype=torch.float64))
    assert found.shape == (1, bins)
    torch.testing.assert_close(
        found[0], torch.tensor(expected, dtype=torch.float64), atol=1e-9, rtol=1e-7
    )
    assert float(found.sum()) == pytest.approx(1)


def test_hl_gauss_reads_its_mean_back() -> None:
    hl = HLGauss(-1.0, 1.0, 51)
    target = torch.linspace(-0.9, 0.9, 7, dtype=torch.float64)
    torch.testing.assert_close(
        hl.mean(hl(target).log().clamp(min=-1e4)), target.float(), atol=2e-3, rtol=0
    )
    assert hl(torch.tensor([0.3]).half()).dtype == torch.float32


@settings(max_examples=30, deadline=None)
@given(
    losses=st.lists(st.floats(0, 80), min_size=1, max_size=6),
    radius=st.floats(0.05, 100),
    drop=st.integers(0, 63),
)
def test_kl_dro_by_loop(losses: list[float], radius: float, drop: int) -> None:
    valid = [not drop >> i & 1 for i in range(len(losses))]
    top = max((v for v, ok in zip(losses, valid, strict=True) if ok), default=0.0)
    e = [math.exp((v - top) / radius) if ok else 0.0 for v, ok in zip(losses, valid, strict=True)]
    expected = [v * sum(valid) / (sum(e) or 1) for v in e]
    found = KLDRO(radius)(torch.tensor(losses, dtype=torch.float64), torch.tensor(valid))
    assert found.tolist() == pytest.approx(expected, rel=1e-9, abs=1e-12)


def test_row_weights_carry_no_gradient() -> None:
    z = torch.randn(4, 3, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 0])
    total = Objective({"x": Term(CrossEntropy(), row_weighting=KLDRO(0.7))})(z, y).total
    rows = F.cross_entropy(z, y, reduction="none")
    fixed = (rows * (rows.detach() / 0.7).softmax(0)).sum()
    torch.testing.assert_close(total, fixed)
    a, b = (torch.autograd.grad(t, z)[0] for t in (total, fixed))
    torch.testing.assert_close(a, b)


@pytest.mark.parametrize("exponent", [None, 3.0])
def test_harmonic_head_by_loop(exponent: float | None) -> None:
    torch.manual_seed(0)
    head = HarmonicHead(4, 3, exponent=exponent).double()
    x = torch.randn(2, 5, 4, dtype=torch.float64)
    z = head(x)
    assert z.shape == (2, 5, 3)
    n = 2.0 if exponent is None else exponent  # sqrt(4)
    for i in range(2):
        for j in range(5):
            for k in range(3):
                d = sum(
                    (a - b) ** 2
                    for a, b in zip(x[i, j].tolist(), head.weight[k].tolist(), strict=True)
                )
                assert z[i, j, k].item() == pytest.approx(-n * math.log(d + 1e-4))
    assert torch.autograd.gradcheck(head, (x[0].requires_grad_(),))


def test_harmonic_head_at_a_centre_and_in_half_precision() -> None:
    head = HarmonicHead(4, 3)
    x = head.weight.detach()[:1].clone().requires_grad_()
    z = head(x)
    z.sum().backward()
    assert z.isfinite().all()
    assert x.grad.isfinite().all()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert head(x.bfloat16()).dtype == torch.float32


def test_weight_distribution_by_loop() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Linear(3, 4), nn.Linear(4, 5), nn.BatchNorm1d(5), nn.Linear(5, 2)
    ).double()
    terms = []
    for name in ("1.weight", "3.weight"):  # not the first, not the vector of the norm
        w = module.get_parameter(name).flatten().tolist()
        mean = sum(w) / len(w)
        sd = math.sqrt(sum((v - mean) ** 2 for v in w) / (len(w) - 1))
        z = [(v - mean) / sd for v in w]
        kurtosis, skewness = (sum(v**k for v in z) / len(z) for k in (4, 3))
        terms.append(0.015 * (kurtosis - 1.8) ** 2 + 1.0 * skewness**2)
    assert WeightDistribution()(module).item() == pytest.approx(sum(terms) / 2)
    w = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(WeightDistribution()._penalty, (w,))


def test_weight_distribution_without_or_with_constant_weights() -> None:
    with pytest.raises(ValueError, match="beside the first: write skip_first=False"):
        WeightDistribution()(nn.Linear(2, 2))
    with pytest.raises(ValueError, match="found no weight matrix matching 'nope'"):
        WeightDistribution("nope", skip_first=False)(nn.Linear(2, 2))
    constant = nn.Linear(2, 2)
    nn.init.ones_(constant.weight)
    penalty = WeightDistribution(skip_first=False)(constant)
    penalty.backward()
    assert penalty.isfinite()
    assert constant.weight.grad.isfinite().all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CompSum(-1.0), "tau must be at least 0"),
        (lambda: CrossEntropy(1.5), "label_smoothing must be in"),
        (lambda: Focal(-1.0), "gamma must be at least 0"),
        (lambda: KnowledgeDistillation(0.0), "temperature must be positive"),
        (lambda: MultiSimilarity(alpha=0.0), "alpha and beta must be positive"),
        (lambda: KLDRO(0.0), "radius must be positive"),
        (lambda: HLGauss(1.0, -1.0, 3), "max_value > min_value"),
        (lambda: HLGauss(-1.0, 1.0, 0), "num_bins >= 1"),
        (lambda: PGD(attack="fgsm"), "attack must be"),
        (lambda: PGD(steps=-1), "steps and noise must be at least 0"),
        (lambda: PGD(low=1.0, high=0.0), "low must be below high"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


# -- providers -------------------------------------------------------------------------------------


def small_net() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.Linear(8, 3))


@pytest.mark.parametrize("attack", ["kl", "ce"])
def test_pgd_leaves_modes_and_gradients_as_found(attack: Any) -> None:
    net, x, y = small_net(), torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    net[1].eval()  # a user's frozen norm must stay frozen
    modes = [m.training for m in net.modules()]
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    pgd = PGD(epsilon=0.1, step_size=0.05, steps=3, attack=attack)
    z = pgd({"input": x, "model": net, "logits": net(x), "target": y})
    assert z.shape == (6, 3)
    assert z.requires_grad
    assert [m.training for m in net.modules()] == modes
    assert all(torch.equal(p.grad, torch.ones_like(p)) for p in net.parameters())
    assert not x.requires_grad


def test_pgd_stays_in_the_ball_and_finds_something_worse() -> None:
    net = small_net().eval()
    x = torch.rand(6, 4)
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    clean = net(x)
    torch.manual_seed(1)
    z = PGD(epsilon=0.1, step_size=0.05, steps=5)({"input": x, "model": net, "logits": clean})
    assert (seen[-1] - x).abs().max() <= 0.1 + 1e-6
    assert seen[-1].min() >= 0
    assert seen[-1].max() <= 1
    assert (seen[-1] - x).abs().max() > 0.05
    divergence = kl_divergence(log_softmax(clean), log_softmax(z))
    assert divergence.mean() > 1e-4


@pytest.mark.parametrize("attack", ["kl", "ce"])
@pytest.mark.parametrize("context", [torch.no_grad, torch.inference_mode])
def test_pgd_in_validation(context: Any, attack: Any) -> None:
    net, x, y = small_net(), torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    objective = Objective({"t": Trades()}, providers={"logits_adv": PGD(steps=2, attack=attack)})
    net.eval()
    with context():
        x, y = x.clone(), y.clone()  # inference tensors, as a loader makes them there
        total = objective(net(x), y, input=x, model=net).total
    assert total.isfinite()
    assert not total.requires_grad
    assert not net.training


# Each reaches the net as no attribute of the callable says.
@pytest.mark.parametrize("way", ["closure", "partial", "default", "object", "method"])
def test_pgd_attacks_in_eval_mode_whatever_calls_the_net(way: str) -> None:
    net, x = small_net(), torch.rand(6, 4)

    class Holder:
        def __call__(self, x: Tensor) -> Tensor:
            out: Tensor = net(x)
            return out

    models = {
        "closure": lambda x: net(x),
        "partial": functools.partial(torch.nn.Module.__call__, net),
        "default": lambda x, f=net: f(x),
        "object": Holder(),
        "method": net.forward,
    }
    statistics = net[1].running_mean.clone()
    seen: list[bool] = []
    net[2].register_forward_pre_hook(lambda module, _: seen.append(module.training))
    clean = torch.zeros(6, 3)
    PGD(steps=3)({"input": x, "model": models[way], "logits": clean})
    # The last run, whose logits are trained on, is in the mode of the step.
    assert seen == [False] * 3 + [True]
    assert net[1].num_batches_tracked == 1
    assert not torch.equal(net[1].running_mean, statistics)
    assert all(module.training for module in net.modules())
    assert not torch.nn.modules.module._global_forward_pre_hooks


def test_pgd_without_bounds_and_with_one() -> None:
    net, x = nn.Linear(4, 3), 5 * torch.randn(6, 4, generator=torch.Generator().manual_seed(0))
    clean = net(x)
    seen: list[Tensor] = []
    net.register_forward_pre_hook(lambda _, given: seen.append(given[0].detach()))
    for low, high in ((None, None), (-20.0, None), (None, 20.0)):
        PGD(epsilon=0.1, low=low, high=high)({"input": x, "model": net, "logits": clean})
        assert 0 < (seen[-1] - x).abs().max() <= 0.1 + 1e-6


def test_pgd_refuses_inputs_beyond_its_bounds() -> None:
    """Normalised images: 2.6 would be moved to 1, where epsilon is 0.03."""
    net, x = nn.Linear(4, 3), torch.tensor([[2.6, 0.5, -1.8, 0.0]])
    given = {"input": x, "model": net, "logits": net(x)}
    with pytest.raises(ValueError, match=r"from 0.0 to 1.0, found -1.8 to 2.6: .*low: null"):
        PGD()(given)
    lowest, highest = PGD(low=-2.0, high=3.0)._bounds(x)
    torch.testing.assert_close(highest - lowest, torch.full_like(x, 0.062))
    # Where nobody asks (a GPU, a compiled step), an input beyond stays within its ball.
    pgd = PGD()
    with mock.patch("lightning_losses.providers.pgd.may_ask", return_value=False):
        lowest, highest = pgd._bounds(x)
    assert bool((lowest <= x).all())
    assert bool((highest >= x).all())
    assert bool((highest[:, 0] == x[:, 0]).all())


def test_pgd_of_margins_is_the_worst_for_smooth_adversarial() -> None:
    """Its own norm, ascended, is above what other attacks reach."""
    torch.manual_seed(0)
    net = nn.Sequential(nn.Linear(4, 32), nn.Tanh(), nn.Linear(32, 3))
    for p in net.parameters():  # as sure of itself as a trained net
        p.data *= 6
    x, y = torch.rand(64, 4), torch.randint(3, (64,))
    clean = net(x)
    norm: dict[str, float] = {}
    for attack in ("kl", "ce", "margin"):
        torch.manual_seed(1)
        z = PGD(epsilon=0.2, step_size=0.05, steps=10, attack=attack)(
            {"input": x, "model": net, "logits": clean, "target": y}
        )
        moved = z - clean
        norm[attack] = float((moved.gather(1, y[:, None]) - moved).norm(dim=1).mean())
    assert norm["margin"] > 1.02 * max(norm["kl"], norm["ce"])
    provider = build_objective("smooth_adversarial").providers["logits_adv"]
    assert provider.attack == "margin"


def test_pgd_trains_through_the_objective() -> None:
    net, x, y = small_net(), torch.rand(6, 4), torch.tensor([0, 1, 2, 0, 1, 2])
    objective = build_objective("trades")
    objective(net(x), y, input=x, model=net).total.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in net.parameters())


def test_pgd_passed_logits_go_before_the_provider() -> None:
    class Refuses(nn.Module):
        def forward(self, tensors: Any) -> Tensor:
            raise AssertionError("asked although logits_adv was passed")

    objective = Objective({"t": Trades()}, providers={"logits_adv": Refuses()})
    assert objective(F1, Y1, logits_adv=G1).total.isfinite()


def test_frozen_teacher_adds_nothing_and_learns_nothing() -> None:
    teacher = small_net()
    provider = FrozenTeacher(teacher)
    objective = Objective({"kd": KnowledgeDistillation()}, providers={"teacher_logits": provider})
    assert objective.state_dict() == {}
    assert list(objective.parameters()) == []
    x, z = torch.rand(6, 4), torch.randn(6, 3, requires_grad=True)
    objective.train()
    before = {k: v.clone() for k, v in teacher.state_dict().items()}
    a, b = objective(z, input=x).total, objective(z, input=x).total
    assert torch.equal(a, b)  # no dropout: eval mode, also after train()
    a.backward()
    assert all(p.grad is None for p in teacher.parameters())
    assert all(torch.equal(v, teacher.state_dict()[k]) for k, v in before.items())
    expected = KnowledgeDistillation()(z, teacher(x)).mean()
    torch.testing.assert_close(a, expected)
    with pytest.raises(ValueError, match="The teacher needs the input"):
        objective(z)


# -- embeddings of a memory ------------------------------------------------------------------------


def test_pairs_with_references_as_pytorch_metric_learning() -> None:
    from pytorch_metric_learning.losses import MultiSimilarityLoss

    g = torch.Generator().manual_seed(0)
    x = torch.randn(6, 4, generator=g, requires_grad=True)
    ref = torch.randn(9, 4, generator=g)
    y, labels = torch.randint(3, (6,), generator=g), torch.randint(3, (9,), generator=g)
    named = {"features": x, "target": y, "ref_features": ref, "ref_target": labels}
    theirs = MultiSimilarityLoss(alpha=2, beta=50, base=0.5)(x, y, ref_emb=ref, ref_labels=labels)
    loss = MultiSimilarity(miner_epsilon=None)
    found = Objective({"x": loss})(**named).total
    torch.testing.assert_close(found, theirs)
    a, b = (torch.autograd.grad(total, x)[0] for total in (found, theirs))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6)


def test_orthogonal_projection_on_references_by_loop() -> None:
    g = torch.Generator().manual_seed(1)
    x, ref = (torch.randn(n, 4, generator=g, dtype=torch.float64) for n in (5, 7))
    y, labels = torch.randint(3, (5,), generator=g), torch.randint(3, (7,), generator=g)
    mask = torch.tensor([True, True, False, True, True])
    cosines: dict[bool, list[float]] = {True: [], False: []}
    for i in range(5):
        for j in range(7):
            if mask[i]:
                same = bool(y[i] == labels[j])
                cosines[same].append(float(F.cosine_similarity(x[i], ref[j], dim=0)))
    same, across = (sum(v) / (len(v) + 1e-6) for v in (cosines[True], cosines[False]))
    named = {"features": x, "target": y, "ref_features": ref, "ref_target": labels, "mask": mask}
    found = float(Objective({"x": OrthogonalProjection()})(**named).total)
    assert found == pytest.approx(1 - same + 0.5 * across)


@pytest.mark.parametrize("loss", [OrthogonalProjection(), MultiSimilarity()])
def test_references_that_do_not_fit(loss: nn.Module) -> None:
    x, y = torch.ones(3, 2), torch.tensor([0, 0, 1])
    for ref, labels, said in (
        (torch.ones(4, 2), None, "go together"),
        (None, y, "go together"),
        (torch.ones(4, 2), y, "as many rows"),
        (torch.ones(3, 5), y, r"ref_features must be \(M, 2\)"),
    ):
        with pytest.raises(ValueError, match=said):
            loss(x, y, ref_features=ref, ref_target=labels)
