# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses for calibrated confidences against loops over rows, and where batches say nothing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from lightning_losses import Objective
from lightning_losses.losses import (
    DCA,
    MDCA,
    MMCE,
    AvUC,
    CorrectnessAware,
    DualFocal,
    Evidential,
    SoftAvUC,
    SoftBinnedECE,
    SoftLabelBinnedECE,
)
from lightning_losses.losses.calibration import mmce

CLASSES = 4


def batch(rows: int = 9, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Rows of which some are right and some wrong, some sure and some not."""
    g = torch.Generator().manual_seed(seed)
    z = 2 * torch.randn(rows, CLASSES, generator=g, dtype=torch.float64)
    return z, torch.randint(CLASSES, (rows,), generator=g)


# ---------------------------------------------------------------- plain formulas, a row at a time


def rows_of(z: Tensor, y: Tensor) -> list[tuple[Tensor, float]]:
    """Confidence, with gradient, and correctness of each row."""
    return [(row.softmax(0).max(), float(row.argmax() == k)) for row, k in zip(z, y, strict=True)]


def dual_focal(z: Tensor, y: Tensor, gamma: float = 5.0) -> Tensor:
    losses = []
    for row, k in zip(z, y, strict=True):
        p = row.softmax(0)
        below = [q for q in p if q < p[k]]
        runner_up = max(below) if below else 0.0
        losses.append(-((1 - p[k] + runner_up) ** gamma) * p[k].log())
    return torch.stack(losses).mean()


def kernel_sum(left: list[tuple[Tensor, Any]], right: list[tuple[Tensor, Any]]) -> Tensor:
    """Sum over pairs of the products of weights and the kernel of confidences."""
    parts = [u * w * (-(c - d).abs() / 0.4).exp() for c, u in left for d, w in right]
    return torch.stack([torch.as_tensor(p) for p in parts]).sum()


def mmce_squared(z: Tensor, y: Tensor) -> Tensor:
    gaps = [(c, a - c) for c, a in rows_of(z, y)]
    return kernel_sum(gaps, gaps) / len(z) ** 2


def mmce_weighted(z: Tensor, y: Tensor, twice: bool = False) -> Tensor:
    right = [(c, 1 - c) for c, a in rows_of(z, y) if a]
    wrong = [(c, c) for c, a in rows_of(z, y) if not a]
    m, n = len(right), len(wrong)
    parts = (
        kernel_sum(right, right) / m**2,
        kernel_sum(wrong, wrong) / n**2,
        -2 * kernel_sum(right, wrong) / (m * n),
    )
    sizes = (m**2, n**2, m * n) if twice else (1, 1, 1)
    return torch.stack([p / s for p, s in zip(parts, sizes, strict=True)]).sum().sqrt()


def mdca(z: Tensor, y: Tensor) -> Tensor:
    p = z.softmax(1)
    gaps = [(p[:, k].mean() - (y == k).double().mean()).abs() for k in range(CLASSES)]
    return torch.stack(gaps).mean()


def dca(z: Tensor, y: Tensor) -> Tensor:
    return torch.stack([c - a for c, a in rows_of(z, y)]).mean().abs()


def memberships(c: Tensor, lowest: float, bins: int, temperature: float) -> list[Tensor]:
    centres = [lowest + (1 - lowest) * (b + 0.5) / bins for b in range(bins)]
    weights = [(-((c - centre) ** 2) / temperature).exp() for centre in centres]
    return [w / sum(weights) for w in weights]


def soft_binned(z: Tensor, y: Tensor, temperature: float = 0.01, bins: int = 15) -> Tensor:
    rows = rows_of(z, y)
    shares = [memberships(c, 0.0, bins, temperature) for c, _ in rows]
    total = torch.zeros((), dtype=torch.float64)
    for b in range(bins):
        n = torch.stack([share[b] for share in shares]).sum()
        gap = sum(share[b] * (c - a) for share, (c, a) in zip(shares, rows, strict=True))
        # n (gap / n)^2 of a bin with n rows; the authors' bins have 1e-5 of a row at least.
        total = total + gap**2 / n.clamp(min=1e-5) / len(z)
    return total.sqrt()


def soft_label_binned(z: Tensor, y: Tensor, bins: int = 15) -> Tensor:
    rows = rows_of(z, y)
    shares = [memberships(c, 1 / CLASSES, bins, 0.01) for c, _ in rows]
    shares = [[(1 - 1e-5) * s + 1e-5 / bins for s in share] for share in shares]
    losses = []
    for b in range(bins):
        hit = sum(share[b] * a for share, (_, a) in zip(shares, rows, strict=True))
        accuracy = hit / sum(share[b] for share in shares)
        losses += [s[b] * (accuracy - c) ** 2 for s, (c, _) in zip(shares, rows, strict=True)]
    return torch.stack(losses).sum() / len(z)


def avuc(z: Tensor, y: Tensor, soft: bool = False) -> Tensor:
    good, bad = [], []
    for row, (c, a) in zip(z, rows_of(z, y), strict=True):
        p = row.softmax(0)
        h = -(p * p.log()).sum()
        if soft:
            u = h / math.log(CLASSES)
            unsure = (((u * 0.5) / ((1 - u) * 0.5)).log() / 0.1).sigmoid()
            weight = torch.ones(())
        else:
            unsure = torch.as_tensor(float(h > 1.0))
            weight = c if a else 1 - c
        sides = {1: (1 - unsure) * (1 - h.tanh()), 0: unsure * h.tanh()}
        good.append(weight * sides[int(a)])
        bad.append(weight * sides[1 - int(a)])
    return (1 + sum(bad) / sum(good)).log()


def correctness_aware(z: Tensor, y: Tensor) -> Tensor:
    rows = rows_of(z, y)
    accuracy = sum(a for _, a in rows) / len(rows)
    weights = [1 - accuracy if a else accuracy for _, a in rows]
    squares = [w * (c - a) ** 2 for w, (c, a) in zip(weights, rows, strict=True)]
    return torch.stack(squares).sum() / sum(weights)


def evidential(z: Tensor, y: Tensor, kind: str) -> Tensor:
    """By what a Dirichlet is: means and variances of torch's own."""
    losses = []
    for row, k in zip(z, y, strict=True):
        d = torch.distributions.Dirichlet(row.relu() + 1)
        t = torch.zeros(CLASSES, dtype=torch.float64).index_fill(0, k, 1.0)
        alpha = d.concentration
        loss = {
            "mse": ((t - d.mean) ** 2 + d.variance).sum(),
            "log": -d.mean[k].log(),
            "digamma": torch.digamma(alpha.sum()) - torch.digamma(alpha[k]),
        }[kind]
        misleading = torch.distributions.Dirichlet(t + (1 - t) * alpha)
        flat = torch.distributions.Dirichlet(torch.ones(CLASSES, dtype=torch.float64))
        losses.append(loss + torch.distributions.kl_divergence(misleading, flat))
    return torch.stack(losses).mean()


REFERENCES: dict[str, tuple[nn.Module, Callable[[Tensor, Tensor], Tensor]]] = {
    "dual_focal": (DualFocal(), dual_focal),
    "dual_focal 1/2": (DualFocal(0.5), lambda z, y: dual_focal(z, y, 0.5)),
    "mmce squared": (MMCE("squared"), mmce_squared),
    "mmce norm": (MMCE("norm"), lambda z, y: mmce_squared(z, y).sqrt()),
    "mmce weighted": (MMCE("weighted"), mmce_weighted),
    "mmce official": (MMCE("official"), lambda z, y: mmce_weighted(z, y, twice=True)),
    "mdca": (MDCA(), mdca),
    "dca": (DCA(), dca),
    "soft_binned_ece": (SoftBinnedECE(), soft_binned),
    "soft_binned_ece decay": (
        SoftBinnedECE(10, None, 80.0),
        lambda z, y: soft_binned(z, y, 1 / (math.log(80.0) * 100), 10),
    ),
    "soft_label_binned_ece": (SoftLabelBinnedECE(), soft_label_binned),
    "avuc": (AvUC(), avuc),
    "soft_avuc": (SoftAvUC(), lambda z, y: avuc(z, y, soft=True)),
    "edl mse": (Evidential("mse"), lambda z, y: evidential(z, y, "mse")),
    "edl log": (Evidential("log"), lambda z, y: evidential(z, y, "log")),
    "edl digamma": (Evidential("digamma"), lambda z, y: evidential(z, y, "digamma")),
    "correctness_aware": (CorrectnessAware(), correctness_aware),
}


@pytest.mark.parametrize("seed", [0, 1, 8])  # right rows and wrong ones in each
@pytest.mark.parametrize("name", REFERENCES)
def test_value_and_gradient_are_those_of_the_plain_formula(name: str, seed: int) -> None:
    loss, formula = REFERENCES[name]
    z, y = batch(seed=seed)
    ours, theirs = (z.clone().requires_grad_() for _ in range(2))
    value, expected = Objective({"a": loss})(ours, y).total, formula(theirs, y)
    torch.testing.assert_close(value, expected, rtol=1e-6, atol=1e-12)
    (grad,) = torch.autograd.grad(value, ours)
    (wanted,) = torch.autograd.grad(expected, theirs)
    torch.testing.assert_close(grad, wanted, rtol=1e-5, atol=1e-9)
    assert bool(grad.any())


@pytest.mark.parametrize("name", REFERENCES)
def test_rows_that_do_not_count_change_nothing(name: str) -> None:
    loss, _ = REFERENCES[name]
    objective = Objective({"a": loss})
    z, y = batch()
    more_z, more_y = batch(4, seed=7)
    more_z[0, 0] = torch.inf
    whole = torch.cat([more_z, z]).requires_grad_()
    value = objective(whole, torch.cat([torch.full_like(more_y, -100), y])).total
    torch.testing.assert_close(value, objective(z, y).total, rtol=1e-12, atol=1e-15)
    (grad,) = torch.autograd.grad(value, whole)
    assert not bool(grad[:4].any())
    assert bool(grad[4:].isfinite().all())


@pytest.mark.parametrize("rows", [0, 1, 5])
@pytest.mark.parametrize("right", [True, False])
@pytest.mark.parametrize("name", REFERENCES)
def test_batches_without_rows_or_without_one_kind_of_rows(
    name: str, right: bool, rows: int
) -> None:
    """All right or all wrong, one row, none, and all of them sure without a doubt."""
    objective = Objective({"a": REFERENCES[name][0]})
    z, _ = batch(rows)
    for logits in (z, 1e3 * z):
        logits = logits.clone().requires_grad_()
        target = (logits.detach().argmax(1) if rows else torch.zeros(0)).long()
        target = target if right else (target + 1) % CLASSES
        value = objective(logits, target).total
        (grad,) = torch.autograd.grad(value, logits)
        assert bool(value.isfinite())
        assert bool(grad.isfinite().all())
        if not rows:
            assert float(value) == 0
        if "weighted" in name or "official" in name:
            assert float(value) == 0  # nothing to be told apart


@pytest.mark.parametrize("name", REFERENCES)
def test_a_class_that_is_masked_out(name: str) -> None:
    objective = Objective({"a": REFERENCES[name][0]})
    z, y = batch()
    y = y % (CLASSES - 1)
    z[:, -1] = -torch.inf
    z.requires_grad_()
    value = objective(z, y).total
    (grad,) = torch.autograd.grad(value, z)
    assert bool(value.isfinite())
    assert bool(grad.isfinite().all())
    assert not bool(grad[:, -1].any())


#: Those on softmax statistics, which therefore need no logits.
STATISTICS = ("mmce weighted", "mmce norm", "dca", "soft_binned_ece", "avuc", "correctness_aware")


@pytest.mark.parametrize("kernel", ["reference", "chunked"])
@pytest.mark.parametrize("name", STATISTICS)
def test_from_hidden_states_without_logits(name: str, kernel: str) -> None:
    loss, _ = REFERENCES[name]
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(9, 3, generator=g, dtype=torch.float64).requires_grad_()
    head = torch.randn(CLASSES, 3, generator=g, dtype=torch.float64).requires_grad_()
    _, y = batch()
    expected = Objective({"a": loss})(hidden @ head.t(), y).total
    objective = Objective({"a": loss}, kernel=kernel)
    found = objective(hidden=hidden, head_weight=head, target=y).total
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-12)
    grads = (torch.autograd.grad(v, (hidden, head)) for v in (found, expected))
    torch.testing.assert_close(*grads, rtol=1e-8, atol=1e-12)


@pytest.mark.parametrize("name", REFERENCES)
def test_gradcheck(name: str) -> None:
    z, y = batch(6, seed=3)
    objective = Objective({"a": REFERENCES[name][0]})
    assert torch.autograd.gradcheck(lambda x: objective(x, y).total, z.requires_grad_())


def test_mmce_in_blocks_is_mmce(monkeypatch: pytest.MonkeyPatch) -> None:
    z, y = batch(20)
    objective = Objective({"a": MMCE()})
    first, second = (z.clone().requires_grad_() for _ in range(2))
    whole = objective(first, y).total
    whole.backward()
    monkeypatch.setattr(mmce, "LARGE", 60)  # three rows at a time
    parts = objective(second, y).total
    parts.backward()
    torch.testing.assert_close(parts, whole)
    torch.testing.assert_close(second.grad, first.grad)


def test_mmce_official_shrinks_with_the_batch_and_the_others_do_not() -> None:
    """The same rows twice say the same of calibration."""
    z, y = batch()
    for form, ratio in (("norm", 1), ("squared", 1), ("weighted", 1), ("official", 1 / 2)):
        objective = Objective({"a": MMCE(form)})  # type: ignore[arg-type]
        twice = objective(torch.cat([z, z]), torch.cat([y, y])).total
        torch.testing.assert_close(twice, ratio * objective(z, y).total)


def test_dual_focal_leaves_ties_with_the_target_out() -> None:
    """Three classes tie, and the fourth is the runner-up; without one below there is none."""
    z = torch.tensor([[1.0, 1.0, 1.0, -1.0], [0.0, 1.0, 1.0, 2.0]], dtype=torch.float64)
    p = z.softmax(1)
    found = Objective({"a": DualFocal(2.0)}, reduction="none")(z, torch.tensor([0, 0])).total
    for row, runner_up in ((0, float(p[0, 3])), (1, 0.0)):
        py = float(p[row, 0])
        assert float(found[row]) == pytest.approx(-((1 - py + runner_up) ** 2) * math.log(py))


def test_dual_focal_with_gamma_0_is_cross_entropy() -> None:
    z, y = batch()
    found = Objective({"a": DualFocal(0.0)})(z, y).total
    torch.testing.assert_close(found, nn.functional.cross_entropy(z, y))


def test_avuc_detached_has_the_same_value_and_another_gradient() -> None:
    z, y = batch()
    grads = []
    for detach in (False, True):
        x = z.clone().requires_grad_()
        value = Objective({"a": AvUC(detach_confidence=detach)})(x, y).total
        grads.append((value.detach(), torch.autograd.grad(value, x)[0]))
    torch.testing.assert_close(grads[0][0], grads[1][0])
    assert not torch.allclose(grads[0][1], grads[1][1])


def test_the_divergence_of_edl_grows_over_its_steps() -> None:
    z, y = batch()
    loss = Evidential("log", kl_weight=0.5, anneal_steps=10)
    objective = Objective({"a": loss})
    without = Objective({"a": Evidential("log", kl_weight=0.0)})(z, y).total
    whole = Objective({"a": Evidential("log", kl_weight=0.5)})(z, y).total
    for step, share in ((0, 0.0), (5, 0.5), (10, 1.0), (99, 1.0)):
        objective.set_step(step)
        found = objective(z, y).total
        torch.testing.assert_close(found, without + share * (whole - without))


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: DualFocal(-1.0), "gamma"),
        (lambda: MMCE("other"), "norm, squared, weighted, official"),  # type: ignore[arg-type]
        (lambda: MMCE(width=0.0), "width"),
        (lambda: SoftBinnedECE(0), "bins"),
        (lambda: SoftBinnedECE(temperature=-1.0), "temperature"),
        (lambda: SoftLabelBinnedECE(decay=1.0), "decay"),
        (lambda: AvUC(-1.0), "threshold"),
        (lambda: SoftAvUC(1.0), "threshold"),
        (lambda: Evidential("other"), "kind"),  # type: ignore[arg-type]
        (lambda: Evidential(kl_weight=-1.0), "kl_weight"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], nn.Module], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        make()


def test_terms_beside_cross_entropy_bring_confidence_to_accuracy() -> None:
    """Overconfident logits of which 60 % are right: each term moves the temperature up."""
    g = torch.Generator().manual_seed(0)
    y = torch.randint(CLASSES, (500,), generator=g)
    seen = torch.where(torch.rand(500, generator=g) < 0.6, y, (y + 1) % CLASSES)
    z = 6.0 * nn.functional.one_hot(seen, CLASSES).double()
    scale = torch.ones((), dtype=torch.float64, requires_grad=True)
    for name, (loss, _) in REFERENCES.items():
        # edl has no softmax, mdca's classes are even as they are, and avuc weighs wrong rows by
        # what their confidence leaves: more confidence is the short way down (soft_avuc is flat).
        if not name.startswith(("edl", "mdca")) and "avuc" not in name:
            (slope,) = torch.autograd.grad(Objective({"a": loss})(z * scale, y).total, scale)
            assert float(slope) > 0, name


def test_much_evidence_leaves_the_divergence_of_edl_its_digits() -> None:
    """evidence: exp makes 1.2 million of a logit of 14, whose lgamma float32 has in steps of 1."""
    for evidence, z in (("exp", 14.0), ("relu", 1e6)):
        logits, y = torch.tensor([[z, 0.0, z]]), torch.tensor([0])
        loss = Evidential(evidence=evidence)  # type: ignore[arg-type]
        torch.testing.assert_close(loss(logits, y), loss(logits.double(), y).float())
