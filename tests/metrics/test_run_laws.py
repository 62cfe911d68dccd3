# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Laws over runs: found again from runs that follow them, and refused where they cannot be."""

from __future__ import annotations

import pytest
import torch

from lightning_losses.metrics.training_curve.run_laws import (
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
