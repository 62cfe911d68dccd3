# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Unnormalised models, marginals, flows, divergences and concepts against an obvious loop.

Numbers for one row are worked out by hand from the papers' formulas.
"""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from lightning_losses import Objective, Term, build_objective
from lightning_losses.heads.concept_bottleneck import ConceptBottleneckHead
from lightning_losses.losses import KnowledgeDistillation
from lightning_losses.losses.density.compositional_nll import CompositionalNLL
from lightning_losses.losses.density.marginalization import MarginalizationConsistency
from lightning_losses.losses.density.noise_contrastive import NoiseContrastive
from lightning_losses.losses.distillation.f_divergence import KINDS, LARGEST, FDivergence
from lightning_losses.losses.ordinal.squared_error import SquaredError
from lightning_losses.losses.shared.moving_log_mean import MovingLogMean
from lightning_losses.losses.weak_labels.concept_bottleneck import ConceptBottleneckGumbel
from lightning_losses.weighting.gibbs import Gibbs

Named = dict[str, Tensor]
#: Both ends and the middle of the bounded range, both sides of the seams at 0, 1/2 and 1, beyond.
ALPHAS = [-1.0, -1e-9, 0.0, 1e-4, 0.49, 0.5, 0.9999, 1.0, 1 + 1e-9, 2.0]
EVERY_F = [("alpha", a) for a in ALPHAS] + [("jensen_shannon", 0.5), ("total_variation", 0.5)]


def value(loss: nn.Module | Term, **named: Any) -> float:
    return float(Objective({"x": loss})(**named).total)


def normal(*shape: int, seed: int = 0, scale: float = 1.0) -> Tensor:
    g = torch.Generator().manual_seed(seed)
    return scale * torch.randn(*shape, generator=g, dtype=torch.float64)


def some(rows: int, seed: int) -> Tensor:
    """A mask in which some rows count, sometimes none."""
    return torch.rand(rows, generator=torch.Generator().manual_seed(seed)) > 0.4


def softplus(x: float) -> float:
    return math.log1p(math.exp(x))


def densities(rows: int, noise: int, seed: int) -> Named:
    return {
        "score": normal(rows, seed=seed),
        "log_q": normal(rows, seed=seed + 1),
        "noise_score": normal(rows, noise, seed=seed + 2),
        "noise_log_q": normal(rows, noise, seed=seed + 3),
    }


# -- values worked out by hand ---------------------------------------------------------------------


def test_numbers_of_the_cards() -> None:
    log_q = normal(4)
    named = {"score": log_q, "log_q": log_q, "noise_score": log_q, "noise_log_q": log_q}
    assert value(NoiseContrastive(), **named) == pytest.approx(1.386294, abs=1e-6)
    z = normal(4, 5)
    for kind, alpha in EVERY_F:
        loss = FDivergence(kind, alpha)  # type: ignore[arg-type]
        assert value(loss, logits=z, teacher_logits=z + 3) == pytest.approx(0, abs=1e-12)


# -- unnormalised models ---------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 5), noise=st.integers(1, 4))
def test_noise_contrastive_by_loop(seed: int, rows: int, noise: int) -> None:
    named, mask = densities(rows, noise, seed), some(rows, seed)
    expected = 0.0
    for i in range(rows):
        if mask[i]:
            g = float(named["score"][i] - named["log_q"][i]) - math.log(noise)
            expected += softplus(-g)
            for m in range(noise):
                g = float(named["noise_score"][i, m] - named["noise_log_q"][i, m])
                expected += softplus(g - math.log(noise))
    expected /= max(int(mask.sum()), 1)
    assert value(NoiseContrastive(), **named, mask=mask) == pytest.approx(expected)


@pytest.mark.parametrize("off", [0.0, 0.3])
def test_noise_contrastive_is_least_at_the_normalised_density(off: float) -> None:
    """Every pair of a state and a noise state, weighted by how probable it is: no gradient."""
    p, q = (normal(4, seed=s).softmax(0) for s in (1, 2))
    table = (p.log() + off).requires_grad_()  # not normalised if off is not 0
    data, noise = (
        x.flatten() for x in torch.meshgrid(torch.arange(4), torch.arange(4), indexing="ij")
    )
    named = {
        "score": table[data],
        "log_q": q.log()[data],
        "noise_score": table[noise],
        "noise_log_q": q.log()[noise],
        "sample_weight": p[data] * q[noise],
    }
    total = Objective({"x": NoiseContrastive()})(**named).total
    slope = torch.autograd.grad(total, table)[0]
    assert bool((slope.abs() < 1e-12).all()) == (off == 0)
    assert float(slope.sum()) >= -1e-12  # down to the normalised one


def reference_nll(named: Named, mask: Tensor, u: float, rate: float) -> tuple[float, float, float]:
    """Value, r and the new u of one batch, without logarithms of sums."""
    kept = [i for i in range(len(mask)) if mask[i]]
    if not kept:
        return 0.0, 0.0, u
    ratio = (named["noise_score"] - named["noise_log_q"])[kept].exp()
    r = float(ratio.mean())
    new = r if u == 0 else (1 - rate) * u + rate * r
    return math.log(new) - float(named["score"][kept].mean()), r, new


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    noise=st.integers(1, 3),
    rate=st.sampled_from([0.1, 0.7, 1.0]),
    batches=st.integers(1, 3),
)
def test_compositional_nll_by_loop(seed: int, noise: int, rate: float, batches: int) -> None:
    """Three steps of some batches each; the state moves between steps, by their mean."""
    loss = CompositionalNLL(rate).double()
    objective, u = Objective({"x": loss}), 0.0
    for step in range(3):
        objective.set_step(step)
        seen = []
        for batch in range(batches):
            named = densities(4, noise, seed + 31 * step + 7 * batch)
            mask = some(4, seed + 5 * step + batch)
            score, noise_score = (named[n].requires_grad_() for n in ("score", "noise_score"))
            total = objective(**named, mask=mask).total
            expected, r, new = reference_nll(
                {k: v.detach() for k, v in named.items()}, mask, u, rate
            )
            assert total.item() == pytest.approx(expected, abs=1e-12)
            # The surrogate: mean r / u, with u fixed.
            share = (noise_score - named["noise_log_q"])[mask].exp().sum() / noise / (new or 1)
            surrogate = (share - score[mask].sum()) / mask.sum().clamp(min=1)
            for a, b in zip(
                torch.autograd.grad(total, (score, noise_score)),
                torch.autograd.grad(surrogate, (score, noise_score)),
                strict=True,
            ):
                torch.testing.assert_close(a, b)
            seen += [r] if mask.any() else []
        if seen:
            r = sum(seen) / len(seen)
            u = r if u == 0 else (1 - rate) * u + rate * r
        loss.log_z.set_step(step + 1)
        assert float(loss.log_z.value.exp()) == pytest.approx(u)


def test_compositional_nll_is_cross_entropy_over_a_few_states() -> None:
    """All states as noise: Z is exact. The mass of rows is no matter to the gradient."""
    table, y = normal(5, seed=3).requires_grad_(), torch.tensor([0, 0, 2, 4])
    noise = table.expand(4, 5)
    named = {"score": table[y], "noise_score": noise, "noise_log_q": torch.full_like(noise, -9)}
    named["noise_log_q"] = torch.full_like(noise, -math.log(5))
    total = Objective({"x": CompositionalNLL(1.0)})(**named).total
    expected = F.cross_entropy(table.expand(4, 5), y)
    torch.testing.assert_close(total, expected)
    for a, b in zip(*(torch.autograd.grad(t, table) for t in (total, expected)), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("level", [-3e4, 3e4])
def test_log_domain(level: float) -> None:
    """Z of exp(30,000) and a model that falls by as much in one step; weights stay bounded."""
    objective = Objective({"x": CompositionalNLL(0.1)})
    for step, shift in enumerate((level, 0.0, -level)):
        objective.set_step(step)
        noise = torch.tensor([[1.0, -1.0], [0.0, 0.5]]) + shift
        noise.requires_grad_()
        named = {"score": torch.zeros(2), "noise_score": noise, "noise_log_q": torch.zeros(2, 2)}
        total = objective(**named).total
        slope = torch.autograd.grad(total, noise)[0]
        assert total.isfinite()
        assert float(slope.sum()) <= 1.01 / 0.1  # mean r / u, and u is at least rate r


def test_validation_reads_the_average_and_leaves_it() -> None:
    loss = CompositionalNLL(0.5)
    objective = Objective({"x": loss})
    named = densities(4, 2, 0)
    objective(**named)
    objective.set_step(1)
    before = float(loss.log_z.value)
    other = densities(4, 2, 9)
    loss.eval()
    seen = float(objective(**other).total)
    with torch.no_grad():
        assert float(objective(**other).total) == seen
    loss.train()
    with torch.no_grad():
        objective(**other)
    objective.set_step(2)
    assert float(loss.log_z.value) == before
    r = float((other["noise_score"] - other["noise_log_q"]).exp().mean())
    mixed = math.log(0.5 * math.exp(before) + 0.5 * r)
    assert seen == pytest.approx(mixed - float(other["score"].mean()), rel=1e-6)


def test_the_average_is_in_checkpoints_and_no_precision_rounds_it() -> None:
    state = MovingLogMean(0.25)
    state.write(torch.tensor(1.2345678))
    assert float(state.state_dict()["value"]) == pytest.approx(1.2345678)  # as after the step
    assert list(state.state_dict()) == ["value"]
    for other in (copy.deepcopy(state), pickle.loads(pickle.dumps(state))):
        other.write(torch.tensor(3.0))
        other.set_step(1)
        expected = math.log(0.75 * math.exp(1.2345678) + 0.25 * math.exp(3.0))
        assert float(other.value) == pytest.approx(expected, rel=1e-6)
    assert float(state.value) == pytest.approx(1.2345678)
    held = state.value.clone()
    state.to(torch.bfloat16).half()
    assert torch.equal(state.value, held)
    assert state.double().value.dtype == torch.float64
    fresh = MovingLogMean(0.25)
    fresh.load_state_dict(state.state_dict())
    assert torch.equal(fresh.value, held)


# -- marginals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("route", ["logits", "hidden", "fused"])
def test_consistent_marginals_of_a_joint_distribution(route: str) -> None:
    """p(a), p(b | a) and p(a, b) of one table over 3 x 4 states; then one of them off."""
    joint = normal(12, seed=4).softmax(0).reshape(3, 4)
    a, b = (x.flatten() for x in torch.meshgrid(torch.arange(3), torch.arange(4), indexing="ij"))
    conditional = (joint / joint.sum(1, keepdim=True)).log()[a].requires_grad_()
    named = {"target": b, "log_marginal": joint.sum(1).log()[a]}
    named["next_log_marginal"] = joint.log()[a, b]
    if route == "logits":
        named["logits"] = conditional
    else:
        named |= {"hidden": conditional, "head_weight": torch.eye(4, dtype=torch.float64)}
        if route == "hidden":  # gradients of marginals take two passes
            named["log_marginal"].requires_grad_()
    objective = Objective({"x": MarginalizationConsistency()}, kernel="chunked")
    record = objective(**named)
    assert record.total.item() == pytest.approx(0, abs=1e-20)
    off = torch.linspace(-1, 1, 12, dtype=torch.float64)
    named["next_log_marginal"] = named["next_log_marginal"] + off
    total = objective(**named).total
    assert total.item() == pytest.approx(float(off.square().mean()))
    # d gap^2 = 2 gap (1[k = b] - p_k), gap = -off.
    p = conditional.detach().exp()
    slope = -2 * off[:, None] / 12 * (F.one_hot(b, 4) - p)
    torch.testing.assert_close(torch.autograd.grad(total, conditional)[0], slope)


def test_rows_of_other_names_and_rows_that_do_not_count() -> None:
    term = Term(MarginalizationConsistency(), inputs={"log_prob": "log_conditional"})
    x, y, z = (normal(4, seed=s).requires_grad_() for s in range(3))
    bad = z.detach().clone()
    bad[1] = math.nan
    bad.requires_grad_()
    mask = torch.tensor([True, False, True, True])
    total = Objective({"x": term})(
        log_conditional=x, log_marginal=y, next_log_marginal=bad, mask=mask
    ).total
    torch.testing.assert_close(total, (x + y - z)[mask].square().mean())
    for slope in torch.autograd.grad(total, (x, y, bad)):
        assert slope[1] == 0
        assert slope.isfinite().all()


# -- flows -----------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), epsilon=st.sampled_from([0.5, 2.0, 50.0]), weigh=st.booleans())
def test_gibbs_weighted_by_loop(seed: int, epsilon: float, weigh: bool) -> None:
    x0, x1, v = normal(3, 5, 2, 3, seed=seed)
    mask = some(5, seed)
    sample = torch.rand(5, dtype=torch.float64) if weigh else torch.ones(5, dtype=torch.float64)
    kernel, top, mass = [], 0.0, 0.0
    for i in range(5):
        c = sum(d * d for d in (x0[i] - x1[i]).flatten().tolist())
        kernel.append(math.exp(-c / epsilon) if mask[i] else 0.0)
    mean = sum(kernel) / max(int(mask.sum()), 1) or 1.0
    for i in range(5):
        if mask[i]:
            error = sum(d * d for d in (v[i] - (x1[i] - x0[i])).flatten().tolist())
            top += float(sample[i]) * kernel[i] / mean * error
            mass += float(sample[i])
    term = Term(SquaredError(), row_weighting=Gibbs(epsilon))
    named = {"estimate": v, "reference": x1 - x0, "x0": x0, "x1": x1, "mask": mask}
    found = value(term, **named, sample_weight=sample)
    assert found == pytest.approx(top / (mass or 1.0), rel=1e-9)


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 1000), rows=st.integers(1, 6))
def test_limits_of_gibbs_weights(seed: int, rows: int) -> None:
    x0, x1, v = normal(3, rows, 4, seed=seed)
    named = {"estimate": v, "reference": x1 - x0, "x0": x0, "x1": x1}
    plain = (v - (x1 - x0)).square().sum(1)
    assert value(SquaredError(), **named) == pytest.approx(float(plain.mean()))
    far = Term(SquaredError(), row_weighting=Gibbs(1e12))
    assert value(far, **named) == pytest.approx(float(plain.mean()))
    nearest = int((x1 - x0).square().sum(1).argmin())
    cold = Term(SquaredError(), row_weighting=Gibbs(1e-12))
    assert value(cold, **named) == pytest.approx(float(plain[nearest]))


def test_gibbs_weights_do_not_underflow() -> None:
    """Images of 3 x 64 x 64 normal numbers: exp(-24,000) is 0 in any precision."""
    g = torch.Generator().manual_seed(0)
    x0, x1 = torch.randn(2, 8, 3, 64, 64, generator=g)
    valid = torch.ones(8, dtype=torch.bool)
    weights = Gibbs(500.0)(torch.zeros(8), valid, x0, x1)
    assert float(weights.mean()) == pytest.approx(1, rel=1e-5)
    assert 0 < float(weights.min()) < float(weights.max()) < 8
    assert Gibbs()(torch.zeros(0), valid[:0], x0[:0], x1[:0]).shape == (0,)


def test_gibbs_weights_send_no_gradient() -> None:
    x0, x1, v = (x.requires_grad_() for x in normal(3, 4, 3, seed=1).unbind())
    term = Term(SquaredError(), row_weighting=Gibbs(2.0))
    named = {"estimate": v, "reference": (x1 - x0).detach(), "x0": x0, "x1": x1}
    total = Objective({"x": term})(**named).total
    found = torch.autograd.grad(total, (v, x0, x1), allow_unused=True)
    assert found[0] is not None
    assert found[1] is None
    assert found[2] is None


# -- divergences -----------------------------------------------------------------------------------


def divergence(p: list[float], q: list[float], kind: str, alpha: float) -> float:
    """sum q f(p / q) with f as in books."""

    def f(r: float) -> float:
        if kind == "jensen_shannon":
            return (r * math.log(r) - (1 + r) * math.log((1 + r) / 2)) / 2
        if kind == "total_variation":
            return abs(r - 1) / 2
        if abs(alpha) < 1e-8:
            return -math.log(r)
        if abs(alpha - 1) < 1e-8:
            return r * math.log(r)
        return (r**alpha - 1 - alpha * (r - 1)) / (alpha * (alpha - 1))

    return sum(b * f(a / b) for a, b in zip(p, q, strict=True))


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 1000),
    kind=st.sampled_from(KINDS),
    alpha=st.sampled_from(ALPHAS),
    spread=st.floats(0.1, 3),
    masked=st.booleans(),
)
def test_f_divergence_by_loop(
    seed: int, kind: Any, alpha: float, spread: float, masked: bool
) -> None:
    z, teacher = normal(2, 4, 5, seed=seed, scale=spread)
    mask = some(4, seed) if masked else torch.ones(4, dtype=torch.bool)
    p, q = teacher.softmax(1).tolist(), z.softmax(1).tolist()
    rows = [divergence(p[i], q[i], kind, alpha) for i in range(4) if mask[i]]
    named = {"teacher_logits": teacher, "mask": mask}
    found = value(FDivergence(kind, alpha), logits=z, **named)
    assert found == pytest.approx(sum(rows) / max(len(rows), 1), rel=1e-6, abs=1e-10)
    assert found >= -1e-12


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 1000), alpha=st.floats(-2, 3), spread=st.floats(0.1, 2))
def test_alpha_mirrors_and_joins(seed: int, alpha: float, spread: float) -> None:
    """D_alpha(p, q) = D_(1 - alpha)(q, p); at 1 distillation, at 1/2 four times Hellinger."""
    z, t = normal(2, 3, 6, seed=seed, scale=spread)
    there = value(FDivergence("alpha", alpha), logits=z, teacher_logits=t)
    back = value(FDivergence("alpha", 1 - alpha), logits=t, teacher_logits=z)
    assert there == pytest.approx(back, rel=1e-7, abs=1e-12)
    kd = value(KnowledgeDistillation(1.0), logits=z, teacher_logits=t)
    for near in (1.0, 1 - 1e-7, 1 + 1e-7):
        found = value(FDivergence("alpha", near), logits=z, teacher_logits=t)
        assert found == pytest.approx(kd, rel=1e-5)
    roots = (z.softmax(1).sqrt() - t.softmax(1).sqrt()).square().sum(1) / 2
    half = value(FDivergence("alpha", 0.5), logits=z, teacher_logits=t)
    assert half == pytest.approx(4 * float(roots.mean()), rel=1e-7)


def test_bounds_are_reached_where_nothing_overlaps() -> None:
    z, t = torch.tensor([[200.0, -200.0]]), torch.tensor([[-200.0, 200.0]])
    named = {"logits": z, "teacher_logits": t}
    assert value(FDivergence("jensen_shannon"), **named) == pytest.approx(math.log(2))
    assert value(FDivergence("total_variation"), **named) == pytest.approx(1)
    assert value(FDivergence("alpha", 0.5), **named) == pytest.approx(4)


@pytest.mark.parametrize(("kind", "alpha"), EVERY_F)
def test_f_divergence_gradients(kind: Any, alpha: float) -> None:
    z = normal(3, 4, seed=5).requires_grad_()
    teacher = normal(3, 4, seed=6).requires_grad_()

    def total(logits: Tensor) -> Tensor:
        objective = Objective({"x": FDivergence(kind, alpha)})
        return objective(logits, teacher_logits=teacher).total

    assert torch.autograd.gradcheck(total, (z,))
    if kind == "alpha":
        assert torch.autograd.gradgradcheck(total, (z,))
    assert torch.autograd.grad(total(z), teacher, allow_unused=True)[0] is None


@pytest.mark.parametrize(
    ("kind", "alpha", "dtype"),
    [(*f, dtype) for f in EVERY_F for dtype in (torch.bfloat16, torch.float32)]
    # Beyond [0, 1] gradients may be exp(30), which float16 cannot hold.
    + [(*f, torch.float16) for f in EVERY_F if 0 <= f[1] <= 1],
)
def test_f_divergence_is_finite_far_away(kind: Any, alpha: float, dtype: torch.dtype) -> None:
    """Certain of another class, and classes forbidden to one of them or to both."""
    z = torch.tensor([[3e4, -3e4, 0.0], [0.5, -math.inf, 0.1], [0.0, -math.inf, 9.0]], dtype=dtype)
    t = torch.tensor([[-3e4, 3e4, 0.0], [0.2, -math.inf, 0.3], [-math.inf, 2.0, 9.0]], dtype=dtype)
    z = z.requires_grad_()
    total = Objective({"x": FDivergence(kind, alpha)})(z, teacher_logits=t).total
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert torch.autograd.grad(total, z)[0].isfinite().all()


def test_beyond_the_largest_power_a_line_goes_on() -> None:
    """At r^2 = exp(LARGEST): continuous, and the student is still pulled to the teacher."""
    t = torch.tensor([[40.0, 0.0]], dtype=torch.float64)
    found, slopes = [], []
    for side in (-1e-6, 1e-6, 5.0):
        z = torch.tensor([[0.0, LARGEST / 2 + side]], dtype=torch.float64, requires_grad=True)
        total = Objective({"x": FDivergence("alpha", 2.0)})(z, teacher_logits=t).total
        found.append(total.item())
        slopes.append(float(torch.autograd.grad(total, z)[0][0, 0]))
    assert found[0] == pytest.approx(found[1], rel=1e-4)
    assert slopes[0] == pytest.approx(slopes[1], rel=1e-4)
    assert found[0] < found[2]
    assert slopes[2] < 0


# -- concepts --------------------------------------------------------------------------------------


@settings(max_examples=30, deadline=None)
@given(
    seed=st.integers(0, 1000),
    rows=st.integers(1, 5),
    concepts=st.integers(1, 9),
    temperature=st.sampled_from([0.5, 1.0, 3.0]),
    training=st.booleans(),
)
def test_concept_bottleneck_by_loop(
    seed: int, rows: int, concepts: int, temperature: float, training: bool
) -> None:
    loss = ConceptBottleneckGumbel(temperature, seed).train(training)
    z, mask = normal(rows, concepts, seed=seed), some(rows, seed)
    kept = [i for i in range(rows) if mask[i]]
    noise = loss.noise(z[kept], torch.ones(len(kept), dtype=torch.bool))
    a, b = ((z[kept] + g) / temperature for g in noise)
    expected = 0.0
    for i in range(len(kept)):
        for k in range(concepts):
            by_row = sum(math.exp(v) for v in a[i].tolist())
            by_concept = sum(math.exp(v) for v in b[:, k].tolist())
            expected -= float(a[i, k]) - math.log(by_row)
            expected -= float(b[i, k]) - math.log(by_concept)
    expected /= 2 * max(len(kept), 1) * concepts
    assert value(loss, concept_logits=z, mask=mask) == pytest.approx(expected, abs=1e-12)


def test_noise_of_concepts_repeats_and_moves() -> None:
    loss, z = ConceptBottleneckGumbel(seed=3), torch.zeros(2000, 7)
    counts = torch.ones(2000, dtype=torch.bool)
    first = loss.noise(z, counts)
    assert torch.equal(first, loss.noise(z, counts))
    assert torch.equal(first[:, :5], loss.noise(z[:5], counts[:5]))
    loss.set_step(1)
    assert not torch.equal(first, loss.noise(z, counts))
    # Mean and variance of a standard Gumbel; 28,000 draws have standard errors 0.008 and 0.02.
    assert float(first.mean()) == pytest.approx(0.577216, abs=0.03)
    assert float(first.var()) == pytest.approx(math.pi**2 / 6, abs=0.08)
    assert abs(float((first[0] * first[1]).mean()) - 0.577216**2) < 0.06  # two draws, not one
    assert loss.eval().noise(z, counts).abs().max() == 0


def test_equal_concepts_are_the_least() -> None:
    z = torch.zeros(6, 4, dtype=torch.float64, requires_grad=True)
    total = Objective({"x": ConceptBottleneckGumbel().eval()})(concept_logits=z).total
    assert total.item() == pytest.approx((math.log(4) + math.log(6)) / 2)
    assert torch.autograd.grad(total, z)[0].abs().max() < 1e-12


def test_concept_head() -> None:
    torch.manual_seed(0)
    head = ConceptBottleneckHead(4, 3, num_concepts=6, regularization=0.01)
    x = torch.randn(2, 5, 4)
    z = head(x)
    w, v = head.concepts.weight.tolist(), head.classes.weight.tolist()
    for i, row in enumerate(x.reshape(10, 4).tolist()):
        concepts = [sum(a * b for a, b in zip(row, line, strict=True)) for line in w]
        expected = [sum(a * b for a, b in zip(concepts, line, strict=True)) for line in v]
        assert z.reshape(10, 3)[i].tolist() == pytest.approx(expected, abs=1e-5)
    penalty = 0.01 * sum(abs(a) for line in w for a in line) / 6
    assert head.aux_loss.item() == pytest.approx(penalty)
    assert head(x[:0]).shape == (0, 5, 3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        half = head(x.bfloat16())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, head(x.bfloat16().float()))
    assert head.double()(x.double()).dtype == torch.float64
    with torch.no_grad():
        head(x)
    assert head.aux_loss is None
    assert ConceptBottleneckHead(4, 3, 6)(x).requires_grad
    y = 0.5 * torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(head, (y,))


def test_concept_head_trains_with_its_loss() -> None:
    torch.manual_seed(0)
    head = ConceptBottleneckHead(4, 3, num_concepts=6)
    objective = build_objective(["ce", "concept_bottleneck"])
    h, y = torch.randn(8, 4), torch.arange(8) % 3
    concepts = head.concepts(h)
    named = {"logits": head.classes(concepts), "target": y, "concept_logits": concepts}
    objective(**named).total.backward()
    for name, parameter in head.named_parameters():
        assert parameter.grad.abs().max() > 0, name


# -- refusals --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: CompositionalNLL(0.0), r"rate must be in \(0, 1\], got 0"),
        (lambda: CompositionalNLL(1.5), r"rate must be in \(0, 1\]"),
        (lambda: FDivergence("hellinger"), "kind must be one of alpha"),  # type: ignore[arg-type]
        (lambda: FDivergence("alpha", math.inf), "alpha must be finite"),
        (lambda: Gibbs(0.0), "epsilon must be positive"),
        (lambda: ConceptBottleneckGumbel(0.0), "temperature must be positive"),
        (lambda: ConceptBottleneckHead(4, 3, 0), "num_concepts must be at least 1"),
        (lambda: ConceptBottleneckHead(4, 3, 2, -1.0), "regularization at least 0"),
        (lambda: value(NoiseContrastive(), **densities(3, 0, 0)), "M at least 1"),
        (
            lambda: value(
                NoiseContrastive(), **(densities(3, 2, 0) | {"noise_log_q": torch.zeros(3, 4)})
            ),
            "must have one shape",
        ),
        (
            lambda: value(SquaredError(), estimate=torch.zeros(3, 2), reference=torch.zeros(3)),
            "must have one shape",
        ),
        (
            lambda: value(
                Term(SquaredError(), row_weighting=Gibbs()),
                **{n: torch.zeros(3, 2) for n in ("estimate", "reference", "x0")},
                x1=torch.zeros(3),
            ),
            r"x0 \(3, 2\) and x1 \(3,\) must have one shape",
        ),
        (
            lambda: value(CompositionalNLL(), score=torch.zeros(3), noise_score=torch.zeros(3)),
            "needs noise_log_q",
        ),
    ],
)
def test_refusals(make: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()
