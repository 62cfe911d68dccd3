# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses against label noise and adversaries, and their weightings, against an obvious loop.

Numbers for one row are worked out by hand from the papers' formulas:
f = [2, 0, -1], g = [1.5, .5, -1], y = 0.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from loss_values import F1, G1, Y1, Row, batch, kl, probabilities, rows, value
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.config.build import compose_losses
from lightning_losses.losses import (
    LDRKL,
    AdaptiveLDRKL,
    AsymmetricGCE,
    AsymmetricUnhinged,
    Bootstrapping,
    CompSum,
    CrossEntropy,
    EntropyBonus,
    JensenShannon,
    Mart,
    MulticlassHinge,
    NormalizedCompSum,
    RobustLogLoss,
    SymmetricCrossEntropy,
    Trades,
    TruncatedGCE,
    Weat,
)
from lightning_losses.losses.shared.sample_state import SampleState
from lightning_losses.weighting import EnergyWeight, LossReweighting, SimilarityGap

GOLDEN = Path(__file__).parents[1] / "golden" / "entropy.json"


# -- values worked out by hand ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("key", "expected"),
    [("normalized_ce", 0.030828), ("rce", 1.438704), ("symmetric_ce", 1.455688), ("ngce", 0.062820),
     ("agce", 0.300210), ("aul", 0.165060), ("jensen_shannon", 0.165763),
     ("bootstrapping", 0.187567), ("nrce", 0.156205 / 2), ("nce_rce", 0.030828 + 1.438704)],
)  # fmt: skip
def test_presets_are_the_numbers_of_the_cards(key: str, expected: float) -> None:
    assert float(build_objective(key)(F1, Y1).total) == pytest.approx(expected, abs=2e-6)


def test_more_numbers_of_the_cards() -> None:
    assert value(LDRKL(0.0, 1.0, None), F1, Y1) == pytest.approx(-0.928766, abs=1e-6)
    assert value(LDRKL(0.0, 1.0, None), torch.zeros(2, 5), torch.tensor([1, 4])) == 0
    assert value(Bootstrapping(0.8, hard=True), F1, Y1) == pytest.approx(0.169846, abs=1e-6)
    assert value(CompSum(1.7), torch.tensor([[200.0, 0.0]]), Y1) == 0
    uniform = torch.zeros(1, 4)
    assert value(NormalizedCompSum(1.0), uniform, Y1) == pytest.approx(1 / 4)
    for key, expected in (("mart", 0.726374), ("weat", 0.249696)):
        total = build_objective(key)(F1, Y1, logits_adv=G1).total
        assert float(total) == pytest.approx(expected, abs=1e-6)
    weight = EnergyWeight()(Y1, Y1 == 0, F1.logsumexp(1))
    assert weight.tolist() == pytest.approx([0.438986], abs=1e-6)


# -- losses by loop --------------------------------------------------------------------------------


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 1000),
    spread=st.floats(0.1, 8),
    a=st.floats(0.05, 3),
    q=st.floats(0.1, 3),
    w=st.floats(0.02, 0.98),
)
def test_row_losses_by_loop(seed: int, spread: float, a: float, q: float, w: float) -> None:
    z, y = batch(seed, spread)
    losses: dict[str, nn.Module] = {
        "nce": NormalizedCompSum(1.0),
        "nce of statistics": NormalizedCompSum(1.0, num_classes=3),
        "ngce": NormalizedCompSum(1 + q),
        "nrce": NormalizedCompSum(2.0),
        "nrce of statistics": NormalizedCompSum(2.0, num_classes=3),
        "sce": SymmetricCrossEntropy(a, q, -4.0),
        "nce_rce": SymmetricCrossEntropy(a, q, -4.0, normalized=True),
        "agce": AsymmetricGCE(a, q),
        "aul": AsymmetricUnhinged(1 + a, q),
        "rll": RobustLogLoss(a),
        "rll of the code": RobustLogLoss(a, released_code=True),
        "js": JensenShannon(w),
        "soft": Bootstrapping(w),
        "soft, detached": Bootstrapping(w, detach=True),
        "hard": Bootstrapping(w, hard=True),
    }
    want: dict[str, Row] = {name: [] for name in losses}
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        p = probabilities(row)
        nll = [-math.log(v) for v in p]
        nce = nll[k] / sum(nll)
        # With the target cut at e^-4 where it is 0.
        rce = -sum(v * (0 if j == k else -4.0) for j, v in enumerate(p))
        gce = [(1 - v**q) / q for v in p]
        want["nce"].append(nce)
        want["nce of statistics"].append(nce)
        want["ngce"].append(gce[k] / sum(gce))
        want["nrce"].append((1 - p[k]) / 2)
        want["nrce of statistics"].append((1 - p[k]) / 2)
        want["sce"].append(a * nll[k] + q * rce)
        want["nce_rce"].append(a * nce + q * rce)
        want["agce"].append(((a + 1) ** q - (a + p[k]) ** q) / q)
        want["aul"].append(((1 + a - p[k]) ** q - a**q) / q)
        others = [math.log(a + v) for j, v in enumerate(p) if j != k]
        want["rll"].append(math.log((a + 1) / a) - math.log(a + p[k]) + sum(others) / 2)
        inner = sum(math.exp((0 if j == k else v) - sum(row)) + a for j, v in enumerate(row))
        want["rll of the code"].append(-math.log(a + p[k]) + math.log(inner) / 2)
        onehot = [float(j == k) for j in range(3)]
        m = [w * t + (1 - w) * v for t, v in zip(onehot, p, strict=True)]
        scale = -1 / ((1 - w) * math.log(1 - w))
        want["js"].append(scale * (w * kl(onehot, m) + (1 - w) * kl(p, m)))
        entropy = sum(v * n for v, n in zip(p, nll, strict=True))
        want["soft"].append(w * nll[k] + (1 - w) * entropy)
        want["soft, detached"].append(w * nll[k] + (1 - w) * entropy)
        want["hard"].append(w * nll[k] + (1 - w) * min(nll))
    for name, loss in losses.items():
        assert rows(loss, z, y) == pytest.approx(want[name], rel=1e-7, abs=1e-9), name


@settings(max_examples=25, deadline=None)
@given(
    seed=st.integers(0, 1000),
    margin=st.floats(0, 3),
    temperature=st.floats(0.05, 20),
    how=st.sampled_from([None, "softplus", "absolute"]),
)
def test_ldr_kl_by_loop(seed: int, margin: float, temperature: float, how: Any) -> None:
    z, y = batch(seed, 2.0)
    want = []
    for row, k in zip(z.tolist(), y.tolist(), strict=True):
        g = [math.log1p(math.exp(v)) for v in row] if how == "softplus" else row
        scale = sum(abs(v) for v in g) / 3 if how else 1.0
        q = [(v - g[k]) / scale + margin * (j != k) for j, v in enumerate(g)]
        top = max(q)
        inner = sum(math.exp((v - top) / temperature) for v in q) / 3
        want.append(top + temperature * math.log(inner))
    found = rows(LDRKL(margin, temperature, how), z, y)
    assert found == pytest.approx(want, rel=1e-8, abs=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), beta=st.floats(0, 10), adversarial=st.booleans())
def test_adversarial_losses_by_loop(seed: int, beta: float, adversarial: bool) -> None:
    z, y = batch(seed, 2.0)
    other, _ = batch(seed + 1, 2.0)
    mart, weat, energies = [], [], []
    for a, b, k in zip(z.tolist(), other.tolist(), y.tolist(), strict=True):
        p, q = probabilities(a), probabilities(b)
        runner_up = max(v for j, v in enumerate(q) if j != k)
        boosted = -math.log(q[k]) - math.log(1.0001 - runner_up + 1e-12)
        mart.append(boosted + beta * kl(p, q) * (1.0000001 - p[k]))
        energy = abs(math.log(sum(math.exp(v) for v in a)))
        nll = -math.log(q[k] if adversarial else p[k])
        weat.append((nll + beta * kl(p, q)) / math.log1p(math.exp(energy)))
        energies.append([-math.log(sum(math.exp(v) for v in row)) for row in (a, b)])
    assert rows(Mart(beta), z, y, logits_adv=other) == pytest.approx(mart, rel=1e-8)
    term = Term(Weat(beta, adversarial), row_weighting=EnergyWeight())
    assert rows(term, z, y, logits_adv=other) == pytest.approx(weat, rel=1e-8)
    told = Objective({"x": Weat()})(z, y, logits_adv=other).diagnostics
    for i, name in enumerate(("x/energy", "x/energy_adv")):
        expected = sum(one[i] for one in energies) / len(energies)
        assert float(told[name]) == pytest.approx(expected, rel=1e-8)


# -- limits ----------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0.1, 10))
def test_limits(seed: int, spread: float) -> None:
    z, y = batch(seed, spread)
    ce, mae = value(CrossEntropy(), z, y), value(CompSum(2.0), z, y)
    near = lambda x, rel=1e-9: pytest.approx(x, rel=rel, abs=1e-9)  # noqa: E731
    assert value(LDRKL(0.0, 1.0, None), z, y) == near(ce - math.log(3))
    # lambda log 3 bounds the distance to the hinge, Var(q) / (2 lambda) that to the mean.
    hinge = value(MulticlassHinge("pairs", "max", margin=0.7), z, y)
    assert value(LDRKL(0.7, 1e-4, None), z, y) == pytest.approx(hinge, abs=2e-4)
    mean = (z.mean(1) - z.gather(1, y[:, None])[:, 0]).mean() + 0.7 * 2 / 3
    assert value(LDRKL(0.7, 1e6, None), z, y) == pytest.approx(float(mean), abs=1e-3)
    for how in ("softplus", "absolute"):  # never below -lambda log C
        assert value(LDRKL(0.3, 2.0, how), z, y) >= -2 * math.log(3)
    scaled = LDRKL(0.3, 2.0, "absolute")
    assert value(scaled, 7 * z, y) == near(value(scaled, z, y))
    assert value(Bootstrapping(1.0), z, y) == near(ce)
    assert value(Bootstrapping(0.0), z, y) == near(-value(EntropyBonus(), z, y))
    assert value(SymmetricCrossEntropy(1.0, 0.0), z, y) == near(ce)
    assert value(SymmetricCrossEntropy(0.0, 1.0, -4.0), z, y) == near(4 * mae)
    assert value(AsymmetricGCE(0.0, 0.7), z, y) == near(value(CompSum(1.7), z, y))
    assert value(AsymmetricUnhinged(1.3, 1.0), z, y) == near(mae)
    # The distance to cross-entropy is of order w / p_y, that to MAE 1 / -log(1 - w) = 1 / 27.6.
    calm, far = z / spread, 1 - 1e-12
    expected = value(CrossEntropy(), calm, y)
    assert value(JensenShannon(1e-8), calm, y) == pytest.approx(expected, abs=1e-4)
    assert value(JensenShannon(far), z, y) == pytest.approx(mae, abs=1.4 / 27.6)
    assert value(Mart(0.0), z, y, logits_adv=z) >= ce - math.log(1.0001)
    found = value(Weat(3.0), z, y, logits_adv=z + torch.eye(4, 3))
    assert found == near(value(Trades(3.0), z, y, logits_adv=z + torch.eye(4, 3)))


@settings(max_examples=20, deadline=None)
@given(
    seed=st.integers(0, 1000), spread=st.floats(0.1, 10), q=st.floats(0.1, 2), a=st.floats(0.1, 3)
)
def test_symmetric_losses_sum_to_a_constant_over_labels(
    seed: int, spread: float, q: float, a: float
) -> None:
    """What makes a loss robust to symmetric noise: over all labels its sum says nothing."""
    z, y = batch(seed, spread)

    def total(loss: nn.Module) -> Tensor:
        each = [rows(loss, z, torch.full_like(y, k)) for k in range(3)]
        return torch.tensor(each).sum(0)

    constants = {
        NormalizedCompSum(1.0): 1.0,
        NormalizedCompSum(1 + q): 1.0,
        NormalizedCompSum(2.0): 1.0,
        SymmetricCrossEntropy(0.0, 1.0, -4.0): 8.0,
        RobustLogLoss(a): 3 * math.log1p(1 / a),
    }
    for loss, constant in constants.items():
        torch.testing.assert_close(total(loss), torch.full((4,), constant), rtol=1e-5, atol=1e-5)
    assert min(rows(RobustLogLoss(a), z, y)) >= -1e-9


def test_a_fixed_prediction_in_the_target_leaves_cross_entropy() -> None:
    z, y = batch(0, 2.0)
    z.requires_grad_()
    fixed = torch.autograd.grad(Objective({"x": Bootstrapping(0.8, detach=True)})(z, y).total, z)[0]
    ce = torch.autograd.grad(F.cross_entropy(z, y), z)[0]
    torch.testing.assert_close(fixed, 0.8 * ce)
    p = z.detach().softmax(1)
    written_out = -((0.8 * F.one_hot(y, 3) + 0.2 * p) * z.log_softmax(1)).sum(1).mean()
    torch.testing.assert_close(fixed, torch.autograd.grad(written_out, z)[0])


FUSED = ["brier", "rce", "symmetric_ce", "agce", "aul", "jensen_shannon", "bootstrapping",
         "label_smoothing", "truncated_gce", "loss_reweighting", "wad"]  # fmt: skip


@pytest.mark.parametrize("key", FUSED)
def test_losses_of_statistics_hold_no_whole_logits(key: str) -> None:
    (term,) = (term for _, term in build_objective(key).named_terms())
    assert "logits" not in term.required
    assert term.statistics


@pytest.mark.parametrize("loss", [NormalizedCompSum(1.0, 5), NormalizedCompSum(2.0, 5),
                                  SymmetricCrossEntropy(1.0, 1.0, normalized=True, num_classes=5),
                                  Bootstrapping(0.8, hard=True)])  # fmt: skip
def test_number_of_classes_frees_from_whole_logits(loss: nn.Module) -> None:
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(6, 4, generator=g, dtype=torch.float64, requires_grad=True)
    head = torch.randn(5, 4, generator=g, dtype=torch.float64, requires_grad=True)
    y = torch.tensor([0, 1, 2, 3, 4, -100])
    objective = Objective({"x": loss}, kernel="chunked")
    a = objective(hidden=hidden, head_weight=head, target=y).total
    b = Objective({"x": loss}, kernel="reference")(hidden @ head.t(), y).total
    torch.testing.assert_close(a, b)
    for x, w in zip(*(torch.autograd.grad(t, (hidden, head)) for t in (a, b)), strict=True):
        torch.testing.assert_close(x, w)


@pytest.mark.parametrize("extreme", [0.0, 1.0, 1000.0, 3e4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_extreme_logits(dtype: torch.dtype, extreme: float) -> None:
    """Equal logits, and certain hits and misses: no NaN, and float32 numbers."""
    z = torch.tensor([[0.0, 0, 0], [1, 1, -1], [1, -1, 0], [-1, -1, -1]]) * extreme
    y = torch.tensor([0, 2, 0, 1])
    index = torch.arange(4)
    losses = [NormalizedCompSum(t, c) for t in (1.0, 1.7, 2.0) for c in (None, 3)]
    losses += [SymmetricCrossEntropy(), SymmetricCrossEntropy(normalized=True)]
    losses += [AsymmetricGCE(), AsymmetricGCE(0.0, 0.5), AsymmetricUnhinged(1.0, 0.5)]
    losses += [RobustLogLoss(), RobustLogLoss(released_code=True), JensenShannon(0.1)]
    losses += [Bootstrapping(), Bootstrapping(hard=True), Mart(), Weat(), TruncatedGCE(9)]
    losses += [LDRKL(normalize=how) for how in (None, "softplus", "absolute")]
    losses += [AdaptiveLDRKL(9, alpha=a) for a in (1.0, 2.0)]
    for loss in losses:
        named = {"logits_adv": z.flip(1), "sample_index": index}
        half = z.to(dtype).requires_grad_()
        total = Objective({"x": loss})(half, y, **named).total
        (grad,) = torch.autograd.grad(total, half)
        assert total.isfinite(), loss
        assert grad.isfinite().all(), loss
        single = value(loss, half.detach().float(), y, **named)
        assert float(total) == pytest.approx(single, rel=1e-5, abs=1e-6)


# -- state a sample --------------------------------------------------------------------------------


def lambda_by_loop(row: Row, before: float, start: float, alpha: float) -> float:
    scale = sum(abs(v) for v in row) / len(row)
    p = [v + 1e-5 for v in probabilities([v / scale / before for v in row])]
    p = [v / sum(p) for v in p]
    divergence = sum(v * math.log(len(p) * v) for v in p)
    return start * (1 - divergence / (alpha * math.log(len(p))))


def test_aldr_kl_by_loop_over_three_steps() -> None:
    """Two samples visited in each step, one of them in every step: memory by sample, not by row."""
    loss = AdaptiveLDRKL(4, margin=0.1, temperature=2.0, alpha=1.5).double()
    objective = Objective({"x": loss})
    known = [2.0] * 4
    for step, visited in enumerate([(3, 0), (3, 1), (2, 3)]):
        objective.set_step(step)
        z, y = batch(step, 2.0, n=2)
        want = []
        now = {}
        for row, k, i in zip(z.tolist(), y.tolist(), visited, strict=True):
            lam = lambda_by_loop(row, known[i], 2.0, 1.5)
            scale = sum(abs(v) for v in row) / 3
            q = [((v - row[k]) / scale + 0.1 * (j != k)) / lam for j, v in enumerate(row)]
            robust = lam * (math.log(sum(math.exp(v) for v in q)) - math.log(3))
            want.append(robust - 1.5 * math.log(3) / 4 * (lam - 2.0) ** 2)
            now[i] = lam
        for _ in range(2):  # a step that is computed again reads the same state
            found = objective(z, y, sample_index=torch.tensor(visited)).total
            assert float(found) == pytest.approx(sum(want) / 2, rel=1e-9)
        for i, lam in now.items():
            known[i] = lam
    objective.set_step(3)
    assert loss.lambdas.values[:4].tolist() == pytest.approx(known, rel=1e-9)
    assert loss.lambdas.values[1] != 2.0


def test_aldr_kl_gradient_passes_no_lambda() -> None:
    z, y = batch(0, 2.0)
    z.requires_grad_()
    loss = AdaptiveLDRKL(4).double()
    total = Objective({"x": loss})(z, y, sample_index=torch.arange(4)).total
    found = torch.autograd.grad(total, z)[0]
    loss.lambdas.commit()
    fixed = [LDRKL(0.1, float(v), "absolute") for v in loss.lambdas.values[:4]]
    parts = [Objective({"x": f})(z[i : i + 1], y[i : i + 1]).total for i, f in enumerate(fixed)]
    torch.testing.assert_close(found, torch.autograd.grad(sum(parts) / 4, z)[0])


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), spread=st.floats(0, 3), alpha=st.floats(0.5, 3))
def test_aldr_kl_lambda_falls_with_confidence(seed: int, spread: float, alpha: float) -> None:
    z, y = batch(seed, spread)
    loss = AdaptiveLDRKL(4, temperature=0.5, alpha=alpha, normalize=None).double()
    Objective({"x": loss})(z, y, sample_index=torch.arange(4))
    loss.lambdas.commit()
    now = loss.lambdas.values[:4]
    assert (now > 0).all()
    assert (now <= 0.5 + 1e-12).all()
    uniform = torch.zeros(4, 3, dtype=torch.float64)
    Objective({"x": loss})(uniform, y, sample_index=torch.arange(4))
    loss.lambdas.commit()
    torch.testing.assert_close(loss.lambdas.values[:4], torch.full((4,), 0.5).double())


def test_truncated_gce_decides_at_the_visit_before() -> None:
    z = torch.tensor([[3.0, 0.0], [-3.0, 0.0], [-3.0, 0.0]], dtype=torch.float64)
    y, index = torch.zeros(3, dtype=torch.long), torch.tensor([4, 0, 2])
    q, k = 0.7, 0.5
    gce = [(1 - probabilities(row)[0] ** q) / q - (1 - k**q) / q for row in z.tolist()]
    objective = Objective({"x": TruncatedGCE(5, start=1)}, reduction="none")
    for step, kept in enumerate([(1, 1, 1), (1, 1, 1), (1, 0, 0), (1, 0, 0)]):
        objective.set_step(step)
        found = objective(z, y, sample_index=index).total
        expected = [g * w for g, w in zip(gce, kept, strict=True)]
        assert found.tolist() == pytest.approx(expected), step
    # A dropped sample comes back at the visit after the model believes it again.
    for step, kept in ((4, 0), (5, 1)):
        objective.set_step(step)
        found = objective(-z, y, sample_index=index).total
        assert found[1] == pytest.approx(gce[0] * kept)


def test_state_is_not_written_by_rows_that_do_not_count_or_in_validation() -> None:
    z, y = batch(0, 2.0)
    index = torch.tensor([0, 1, 2, 9_999])  # of a padding row: out of range
    y[3] = -100
    for loss in (AdaptiveLDRKL(3), TruncatedGCE(3)):
        objective = Objective({"x": loss})
        state = loss.lambdas if isinstance(loss, AdaptiveLDRKL) else loss.kept
        initial = state.values.clone()
        with torch.no_grad():
            objective(z, y, sample_index=index)
        objective.eval()
        objective(z, y, sample_index=index)
        objective.set_step(1)
        assert torch.equal(state.values, initial)
        objective.train()
        objective(z, y, sample_index=index)
        assert torch.equal(state.values, initial)
        objective.set_step(2)
        assert not torch.equal(state.values[:3], initial[:3])
        y[3] = 0
        with pytest.raises(ValueError, match="num_samples=10000"):
            objective(z, y, sample_index=index)
        y[3] = -100


def test_state_is_in_checkpoints_and_stays_float32() -> None:
    z, y = batch(0, 2.0)
    a, b = (Objective({"x": AdaptiveLDRKL(4)}) for _ in range(2))
    a(z, y, sample_index=torch.arange(4))
    saved = a.state_dict()
    (name,) = saved
    assert name.endswith("lambdas.values")
    assert (saved[name][:4] != 10).all()  # after the step, not before it
    b.load_state_dict(saved)
    after = [o(z, y, sample_index=torch.arange(4)).total for o in (a, b)]
    assert torch.equal(*after)
    b.to(torch.bfloat16)
    assert torch.equal(b.state_dict()[name][:4], a.state_dict()[name][:4])
    assert b.state_dict()[name].dtype == torch.float32
    state = SampleState(2, 1.0).double()
    assert state.values.dtype == torch.float64
    with pytest.raises(ValueError, match="num_samples"):
        SampleState(0, 1.0)


# -- weightings ------------------------------------------------------------------------------------


def reweighted(losses: Row, strategy: str, radius: float) -> Row:
    top, low = max(losses), min(losses)
    f = []
    for v in losses:
        h = 2 * (v - (top + low) / 2) / max(top - low, 1e-6)
        f.append({"linupper": min(h + 1, 1), "quadratic": 1 - h * h, "extremes": abs(h),
                  "upper": (h + 1) / 2}[strategy])  # fmt: skip
    e = [math.exp(v / radius) for v in f]
    return [v * len(e) / sum(e) for v in e]


@settings(max_examples=40, deadline=None)
@given(
    losses=st.lists(st.floats(0, 50), min_size=1, max_size=7),
    strategy=st.sampled_from(["linupper", "quadratic", "extremes", "upper"]),
    radius=st.floats(0.1, 100),
    drop=st.integers(0, 127),
)
def test_loss_reweighting_by_loop(losses: Row, strategy: Any, radius: float, drop: int) -> None:
    valid = [not drop >> i & 1 for i in range(len(losses))]
    kept = [v for v, ok in zip(losses, valid, strict=True) if ok]
    weights = iter(reweighted(kept, strategy, radius) if kept else [])
    expected = [next(weights) if ok else 0.0 for ok in valid]
    x = torch.tensor(losses, dtype=torch.float64)
    found = LossReweighting(strategy, radius)(x, torch.tensor(valid))
    assert found.tolist() == pytest.approx(expected, rel=1e-6, abs=1e-9)


def test_loss_reweighting_golden() -> None:
    """By name, because the cases name their strategy nowhere else."""
    cases = [c for c in json.loads(GOLDEN.read_text())["cases"] if c["key"] == "loss_reweight"]
    for case in cases:
        strategy = next(
            s for s in ("linupper", "quadratic", "extremes", "upper") if s in case["case"]
        )
        x = torch.tensor(case["inputs"]["losses"], dtype=torch.float64)
        weighting = LossReweighting(strategy, case["params"]["r"])  # type: ignore[arg-type]
        valid = torch.ones_like(x, dtype=torch.bool)
        weights = weighting(x, valid) / len(x)
        assert weights.tolist() == pytest.approx(case["expected"]["weights"], abs=1e-9)
        place = weighting.place(x, valid)
        assert place.tolist() == pytest.approx(case["expected"]["normalized"], abs=1e-9)
    assert len(cases) >= 6


def test_loss_reweighting_warms_up() -> None:
    z, y = batch(0, 2.0)
    objective = Objective({"x": Term(CrossEntropy(), row_weighting=LossReweighting(warmup=5))})
    for step, plain in ((0, True), (4, True), (5, False)):
        objective.set_step(step)
        same = float(objective(z, y).total) == pytest.approx(float(F.cross_entropy(z, y)))
        assert same == plain
    assert LossReweighting()(torch.zeros(0), torch.zeros(0, dtype=torch.bool)).shape == (0,)


def test_the_radius_of_loss_reweighting_follows_a_schedule() -> None:
    x, valid = torch.tensor([0.1, 2.0, 3.0]), torch.ones(3, dtype=torch.bool)
    falling = LossReweighting(radius={"start": 2.0, "end": 0.4, "steps": 100})
    for step, radius in ((0, 2.0), (50, 1.2), (1000, 0.4)):
        falling.set_step(step)
        torch.testing.assert_close(falling(x, valid), LossReweighting(radius=radius)(x, valid))
    with pytest.raises(ValueError, match=r"radius must be positive, got 0\.0 at step 10"):
        LossReweighting(radius={"start": 1.0, "end": 0.0, "steps": 10}).set_step(10)
    # As shipped it weighs from the first step on; and a config may hold the fields.
    z, y = batch(0, 2.0)
    assert float(build_objective("loss_reweighting")(z, y).total) != pytest.approx(
        float(F.cross_entropy(z, y))
    )
    node = compose_losses(["loss_reweighting"])
    node.loss_reweighting.row_weighting.radius = {"start": 2.0, "end": 0.4, "steps": 10}
    objective = build_objective(node)
    first = float(objective(z, y).total)
    objective.set_step(10)
    assert float(objective(z, y).total) != pytest.approx(first)


def test_similarity_gap() -> None:
    gap = SimilarityGap()
    s = torch.tensor([[0.9, 0.3, 0.1], [0.6, 0.55, 0.5], [0.8, -0.2, 0.1], [0.0, 0.0, 0.0]])
    valid = torch.ones(4, dtype=torch.bool)
    assert gap(s[:, 0], valid, s).tolist() == pytest.approx([0.6, 0.05, 0.7, 0], abs=1e-6)
    one = torch.tensor([[0.4], [-0.4]])
    assert gap(one[:, 0], valid[:2], one).tolist() == pytest.approx([0.4, 0.4], abs=1e-6)
    z, y = batch(0, 2.0)
    ce = F.cross_entropy(z, y, reduction="none")
    total = build_objective("wad")(z, y, class_similarity=s).total
    assert float(total) == pytest.approx(float((ce * gap(ce, valid, s)).mean()))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: LDRKL(temperature=0.0), "temperature must be positive"),
        (lambda: LDRKL(normalize="l2"), "normalize must be"),
        (lambda: AdaptiveLDRKL(alpha=0.0), "alpha must be positive"),
        (lambda: TruncatedGCE(k=1.0), "k in"),
        (lambda: SymmetricCrossEntropy(log_zero=1.0), "log_zero negative"),
        (lambda: AsymmetricGCE(a=-1.0), "a must be at least 0"),
        (lambda: AsymmetricUnhinged(a=0.5), "a must be at least 1"),
        (lambda: RobustLogLoss(a=0.0), "a must be positive"),
        (lambda: JensenShannon(1.0), "label_weight must be"),
        (lambda: Bootstrapping(2.0), "beta must be"),
        (lambda: LossReweighting("middle"), "strategy must be"),
        (lambda: LossReweighting(radius=0.0), "radius must be"),
    ],
)
def test_bad_settings(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
