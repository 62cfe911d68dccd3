# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Laws over runs: found again from runs that follow them, and refused where they cannot be."""

from __future__ import annotations

import math

import pytest
import torch

from lightning_losses.metrics.training_curve.mixture_fit import fit_mixture
from lightning_losses.metrics.training_curve.quantization_fit import (
    fit_bits,
    fit_group_quantization,
)
from lightning_losses.metrics.training_curve.run_laws import (
    GroupQuantization,
    Hoffmann,
    Mixture,
    Power,
    Refused,
    fit_hoffmann,
    fit_power,
)

TRUE = Hoffmann(1.8, 300.0, 900.0, 0.33, 0.31)
SIZES = [(n, d) for n in (3e6, 1e7, 1e8, 3e8) for d in (1e8, 1e9, 1e10)]


def runs(noise: float = 0.0) -> tuple[list[float], list[float], list[float]]:
    n, d = (torch.tensor(x, dtype=torch.float64) for x in zip(*SIZES, strict=True))
    g = torch.Generator().manual_seed(0)
    loss = TRUE.loss(n, d) * (1 + noise * torch.randn(len(n), generator=g, dtype=torch.float64))
    return n.tolist(), d.tolist(), loss.tolist()


def test_the_law_is_found_again_and_a_bad_run_counts_little() -> None:
    n, d, loss = runs()
    loss[5] *= 1.15
    found = fit_hoffmann(n, d, loss, resamples=0)
    assert found.law.e == pytest.approx(1.8, rel=0.01)
    assert (found.law.alpha, found.law.beta) == pytest.approx((0.33, 0.31), rel=0.01)


def test_the_interval_holds_what_comes_after() -> None:
    found = fit_hoffmann(*runs(0.003), resamples=12)
    low, high = found.interval(1e9, 3e10)
    truth = float(TRUE.loss(torch.tensor(1e9), torch.tensor(3e10)))
    assert low < truth < high
    assert high - low < 0.3


def test_the_best_allocation_is_a_minimum() -> None:
    best = TRUE.best(torch.tensor(1e20, dtype=torch.float64))
    assert float(best.n * best.d * 6) == pytest.approx(1e20)
    for factor in (0.9, 1.1):
        assert TRUE.loss(best.n * factor, best.d / factor) > best.loss


def test_the_best_mixture_has_equal_pulls() -> None:
    kinds = [[1.0, 2.0], [200.0, 300.0], [300.0, 200.0], [0.3, 0.3], [0.3, 0.3], [0.05, 0.2]]
    law = Mixture(*(torch.tensor(x, dtype=torch.float64) for x in kinds))
    shares = law.best_shares(1e9, 1e10)
    pull = law.gamma * law.loss(1e9, 1e10, shares) / shares
    assert float(pull[0]) == pytest.approx(float(pull[1]))
    assert float(shares.sum()) == pytest.approx(1)


def test_it_says_why_not() -> None:
    n, d, loss = runs()
    for wrong, words in (
        ((n[:6], d[:6], loss[:6]), "6 runs are too few"),
        (([1e6] * 12, d, loss), "1 model sizes"),
        (([1e6 + i for i in range(12)], d, loss), "less than a factor of 10"),
        ((n, d, [10 - one for one in loss]), "does not fall with larger models"),
        ((n, d, [float("nan"), *loss[1:]]), "no finite loss"),
    ):
        with pytest.raises(Refused, match=words):
            fit_hoffmann(*wrong, resamples=0)
    with pytest.raises(ValueError, match="as many"):
        fit_hoffmann(n, d, loss[:3])


def test_a_law_of_one_quantity_is_found_again() -> None:
    law = Power(0.4, 30.0, 0.5)
    x = torch.logspace(3, 6, 7, dtype=torch.float64)
    loss = law.loss(x)
    exact = fit_power(x.tolist(), loss.tolist(), resamples=0).law
    assert (exact.e, exact.alpha) == pytest.approx((law.e, law.alpha), rel=0.01)
    g = torch.Generator().manual_seed(0)
    noisy = loss * (1 + 0.01 * torch.randn(7, generator=g, dtype=torch.float64))
    found = fit_power(x.tolist(), noisy.tolist())
    low, high = found.interval(1e7)
    assert low < float(law.loss(torch.tensor(1e7))) < high < low * 1.5
    for wrong, words in (
        ((x[:4], loss[:4]), "4 runs are too few"),
        (([1.0] * 7, loss), "1 values are too few"),
        ((x.log(), loss), "less than a factor of 10"),
        ((x, loss.flip(0)), "does not fall"),
        ((x, 5 - x.log() / 100 - (x / 1e6) ** 4), "no power law"),
    ):
        with pytest.raises(Refused, match=words):
            fit_power(*(list(map(float, one)) for one in wrong), resamples=0)


def mixtures(noise: float = 0.0) -> tuple[list[list[float]], list[list[float]], list[str]]:
    """Three families, two sizes; the second family is in no run of the first mixture."""
    g = torch.Generator().manual_seed(2)
    gamma = torch.tensor([0.05, 0.1, 0.2], dtype=torch.float64)
    shares, losses, sizes = [], [], []
    for size, level in (("small", 3.0), ("large", 2.0)):
        for row in (
            (0.5, 0.0, 0.5),
            (0.2, 0.3, 0.5),
            (0.3, 0.5, 0.2),
            (0.6, 0.3, 0.1),
            (0.4, 0.4, 0.2),
        ):
            p = torch.tensor(row, dtype=torch.float64)
            loss = level * torch.tensor([1.0, 2.0, 1.5], dtype=torch.float64) * p**-gamma
            loss = loss * (1 + noise * torch.randn(3, generator=g, dtype=torch.float64))
            shares.append([*row])
            losses.append([x if math.isfinite(x) else math.nan for x in loss.tolist()])
            sizes.append(size)
    return shares, losses, sizes


def test_the_law_of_a_mixture_is_found_again() -> None:
    shares, losses, sizes = mixtures()
    found = fit_mixture(shares, losses, sizes)
    assert found.law.gamma.tolist() == pytest.approx([0.05, 0.1, 0.2])
    assert found.law.alone(1, 1).tolist() == pytest.approx([2.0, 4.0, 3.0])  # of the last size
    assert found.residual < 1e-9
    best, drawn = found.best_shares()
    pull = found.law.gamma * best ** (-1 - found.law.gamma)
    assert pull.tolist() == pytest.approx([float(pull[0])] * 3)
    assert drawn.shape == (200, 3)
    # By the slow way: least squares with a column for each family of each size, and one slope.
    shares, losses, sizes = mixtures(0.01)
    found = fit_mixture(shares, losses, sizes)
    for i in range(3):
        rows = [r for r in range(len(shares)) if shares[r][i] > 0]
        design = [[math.log(shares[r][i]), sizes[r] == "small", sizes[r] == "large"] for r in rows]
        y = torch.tensor([[math.log(losses[r][i])] for r in rows], dtype=torch.float64)
        slow = torch.linalg.lstsq(torch.tensor(design, dtype=torch.float64), y).solution[:, 0]
        assert float(found.law.gamma[i]) == pytest.approx(-float(slow[0]))
        assert float(found.law.e[i]) == pytest.approx(math.exp(float(slow[2])))
    ends = torch.stack([law.gamma for law in found.resampled]).quantile(0.5, dim=0)
    assert ends.tolist() == pytest.approx([0.05, 0.1, 0.2], abs=0.02)


def test_a_mixture_says_why_not() -> None:
    shares, losses, sizes = mixtures()
    for change, words in (
        ([[p[0]] for p in shares], "one family"),
        (shares[:3], "3 runs with family 0 are too few"),
        ([[0.3, *p[1:]] for p in shares], "shares of family 0 .* within a factor of 1, "),
        ([[p[2], p[1], p[0]] for p in shares], "does not fall with its share"),
    ):
        own = [row[: len(p)] for row, p in zip(losses, change, strict=False)]
        with pytest.raises(Refused, match=words):
            fit_mixture(change, own, sizes[: len(change)])
    with pytest.raises(ValueError, match="runs x families"):
        fit_mixture(shares, losses[:3])


def test_the_cost_of_quantisation_is_found_again() -> None:
    law = GroupQuantization(0.4, 0.2, 0.05, 1.1)
    n, group = [1e6, 1e6, 1e7, 1e7, 1e8, 1e8], [32.0, 128.0] * 3
    at = [torch.tensor(x, dtype=torch.float64) for x in (n, [1e9] * 6, group)]
    found = fit_group_quantization(law.loss(*at).tolist(), n, [1e9] * 6, group)
    assert found.fixed == ("d",)
    assert (found.law.gamma_n, found.law.gamma_g) == pytest.approx((0.2, 1.1))
    assert found.law.loss(*at).tolist() == pytest.approx(law.loss(*at).tolist())
    with pytest.raises(Refused, match="too few for 3 unknowns: it takes 5"):
        fit_group_quantization([0.1] * 4, n[:4], [1e9] * 4, group[:4])
    with pytest.raises(Refused, match=r"adds nothing in one of the pairs \(-0.1\)"):
        fit_group_quantization([*[0.1] * 5, -0.1], n, [1e9] * 6, group)
    with pytest.raises(Refused, match="by a factor of two"):
        fit_group_quantization([0.1] * 6, [1e6] * 6, [1e9] * 6, [32.0] * 6)
    # Bits: (N w)^-alpha with w = 1 - exp(-P / 2.5), and a pair that went wrong.
    bits, reducible = [2.0, 3.0, 4.0, 4.0, 3.0], [0.5, 0.3, 0.2, 0.1, 0.3]
    worth = [1 - math.exp(-b / 2.5) for b in bits]
    added = [a * (w**-0.3 - 1) for a, w in zip(reducible, worth, strict=True)]
    added[-1] *= 5
    fit = fit_bits(added, reducible, bits, alpha=0.3)
    assert fit.gamma == pytest.approx(2.5)
    assert fit.worth(4.0) == pytest.approx(worth[2])
    with pytest.raises(Refused, match="2 pairs"):
        fit_bits(added[:2], reducible[:2], bits[:2], alpha=0.3)
