# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Gaussians, intervals, quantiles and conformal thresholds against loops, scipy and two ranks."""

from __future__ import annotations

import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from ranks import on_ranks
from scipy import integrate, stats
from torch import Tensor

from lightning_losses.losses import Pinball
from lightning_losses.metrics import (
    BrierByPrediction,
    ConformalThreshold,
    GaussianCalibration,
    IntervalCoverage,
    aggregate_quantiles,
    class_scores,
    conformal_interval,
    conformal_threshold,
    crps_gaussian,
    interval_score,
    interval_scores,
    isotonic_quantiles,
    nll_gaussian,
    prediction_sets,
    sort_quantiles,
    split_point_class_discrepancy,
    split_point_discrepancy,
    split_point_scale,
    weighted_interval_score,
)

LEVELS = (0.05, 0.25, 0.5, 0.75, 0.95)


def some(n: int = 200) -> tuple[Tensor, Tensor, Tensor]:
    draw = torch.Generator().manual_seed(5)
    mean, noise = (torch.randn(n, generator=draw, dtype=torch.float64) for _ in range(2))
    deviation = torch.rand(n, generator=draw, dtype=torch.float64) + 0.1
    return mean, deviation, mean + 1.5 * deviation * noise


def test_scores_of_a_gaussian_by_their_definitions() -> None:
    mean, deviation, target = (part[:2] for part in some())
    nll = -stats.norm(mean, deviation).logpdf(target)
    assert nll_gaussian(mean, deviation, target).numpy() == pytest.approx(nll)
    for m, s, y, found in zip(
        *(part.tolist() for part in (mean, deviation, target)),
        crps_gaussian(mean, deviation, target).tolist(),
        strict=True,
    ):
        below = integrate.quad(lambda x: stats.norm(m, s).cdf(x) ** 2, -20, y)[0]  # noqa: B023
        above = integrate.quad(lambda x: stats.norm(m, s).sf(x) ** 2, y, 20)[0]  # noqa: B023
        assert found == pytest.approx(below + above, abs=1e-6)
    zero = torch.zeros(1)
    assert float(crps_gaussian(zero, zero, zero + 2)) == 2


def test_gaussian_calibration_by_a_loop() -> None:
    mean, deviation, target = some()
    metric = GaussianCalibration(levels=11)
    for rows in torch.arange(200).split(63):
        metric.update(mean[rows], deviation[rows], target[rows])
    found = metric.compute()
    z = ((target - mean) / deviation).abs().numpy()
    promised = np.linspace(0, 1, 11)
    held = np.array([(z <= stats.norm.ppf((1 + q) / 2)).mean() for q in promised])
    assert float(found["calibration_error"]) == pytest.approx(np.abs(promised - held).mean())
    fine = np.linspace(0, 1, 100001)
    curve = np.interp(fine, promised, held)
    assert float(found["miscalibration_area"]) == pytest.approx(
        np.trapezoid(np.abs(fine - curve), fine), abs=1e-6
    )
    assert float(found["gap"]) > 0  # the noise was half as large again as said
    assert float(found["sharpness"]) == pytest.approx(float(deviation.square().mean().sqrt()))
    assert int(found["count"]) == 200


def test_the_area_of_a_curve_that_crosses() -> None:
    # 0.25 promised and 0.75 promised, all held between them: above the diagonal, then below it.
    metric = GaussianCalibration(levels=5)
    z = torch.tensor([0.1, 0.2, 5.0, 6.0])
    metric.update(torch.zeros(4), torch.ones(4), z)
    fine = np.linspace(0, 1, 100001)
    curve = np.interp(fine, np.linspace(0, 1, 5), [0, 0.5, 0.5, 0.5, 1])
    area = np.trapezoid(np.abs(fine - curve), fine)
    assert float(metric.compute()["miscalibration_area"]) == pytest.approx(area, abs=1e-6)


def test_rows_of_gaussians_that_do_not_count() -> None:
    mean, deviation, target = some(8)
    metric, expected = GaussianCalibration(), GaussianCalibration()
    valid = torch.arange(8) > 1
    broken = target.clone()
    broken[:2], broken[2], broken[3] = torch.nan, torch.nan, torch.inf
    metric.update(mean, deviation, broken, valid)
    expected.update(mean[4:], deviation[4:], target[4:])
    assert int(metric.compute()["skipped"]) == 2
    for name in ("calibration_error", "crps", "nll", "count"):
        assert torch.equal(metric.compute()[name], expected.compute()[name]), name
    nothing = GaussianCalibration()
    nothing.update(mean[:0], deviation[:0], target[:0])
    assert math.isnan(float(nothing.compute()["miscalibration_area"]))
    with pytest.raises(ValueError, match="positive deviations, found 0"):
        metric.update(mean, 0 * deviation, target)
    with pytest.raises(ValueError, match=r"one shape, found .*squeeze"):
        metric.update(mean, deviation, target[:, None])


def test_intervals_by_a_loop() -> None:
    mean, deviation, target = some()
    lower, upper = mean - deviation, mean + 2 * deviation
    metric = IntervalCoverage(alpha=0.2)
    metric.update(lower, upper, target)
    found = metric.compute()
    inside = [low <= y <= high for low, high, y in zip(lower, upper, target, strict=True)]
    assert float(found["coverage"]) == pytest.approx(np.mean(inside))
    assert float(found["below"]) == pytest.approx(float((target < lower).double().mean()))
    score = [
        float(h - low + 10 * max(low - y, 0) + 10 * max(y - h, 0))
        for low, h, y in zip(lower, upper, target, strict=True)
    ]
    assert float(found["interval_score"]) == pytest.approx(np.mean(score))
    with pytest.raises(ValueError, match="needs lower <= upper"):
        metric.update(upper, lower, target)
    open_ = IntervalCoverage()
    open_.update(torch.tensor([-math.inf]), torch.tensor([math.inf]), torch.tensor([1.0]))
    assert float(open_.compute()["coverage"]) == 1


def test_weighted_interval_score_is_twice_the_pinball_loss() -> None:
    quantiles = torch.randn(50, 5, dtype=torch.float64).sort(1).values
    target = torch.randn(50, dtype=torch.float64)
    found = weighted_interval_score(
        quantiles[:, 2], quantiles[:, [0, 1]], quantiles[:, [4, 3]], target, (0.1, 0.5)
    )
    assert torch.allclose(found, Pinball(LEVELS, factor=2.0)(quantiles, target))
    with pytest.raises(ValueError, match="lower and upper"):
        weighted_interval_score(target, quantiles[:, :1], quantiles[:, 4:], target, (0.1, 0.5))


# ------------------------------------------------------------------------------ quantiles
@settings(max_examples=40, deadline=None)
@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5), st.floats(-6, 6))
def test_quantiles_in_order_are_never_worse(values: list[float], y: float) -> None:
    crossing, target = torch.tensor([values], dtype=torch.float64), torch.tensor([y]).double()
    before = Pinball(LEVELS)(crossing, target)
    for ordered in (sort_quantiles(crossing), isotonic_quantiles(crossing)):
        assert bool((ordered.diff(dim=1) >= -1e-12).all())
        assert float(Pinball(LEVELS)(ordered, target)) <= float(before) + 1e-12
    straight = sort_quantiles(crossing)
    assert torch.allclose(isotonic_quantiles(straight), straight)


def test_quantiles_of_several_models() -> None:
    quantiles = torch.randn(3, 3, 5, dtype=torch.float64, requires_grad=True)
    weight = torch.randn(3, 5, dtype=torch.float64, requires_grad=True)
    found = aggregate_quantiles(quantiles, weight.softmax(0))
    assert torch.allclose(found[2, 4], (weight.softmax(0)[:, 4] * quantiles[2, :, 4]).sum())
    assert torch.autograd.gradcheck(
        lambda q, w: isotonic_quantiles(aggregate_quantiles(q, w.softmax(0))), (quantiles, weight)
    )
    flat = torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64)
    assert aggregate_quantiles(quantiles, flat).shape == (3, 5)
    with pytest.raises(ValueError, match="sum to 1 over models"):
        aggregate_quantiles(quantiles, 2 * flat)
    with pytest.raises(ValueError, match="weight must be"):
        aggregate_quantiles(quantiles, flat[:2])


# ------------------------------------------------------------------------------ conformal
@pytest.mark.parametrize(("n", "alpha", "rank"), [(19, 0.1, 18), (9, 0.1, 9), (99, 0.05, 95)])
def test_the_rank_of_the_threshold(n: int, alpha: float, rank: int) -> None:
    scores = torch.randperm(n).double() + 1
    assert float(conformal_threshold(scores, alpha)) == rank
    assert math.isinf(float(conformal_threshold(scores[: math.ceil(1 / alpha) - 2], alpha)))


def test_conformal_coverage() -> None:
    draw = torch.Generator().manual_seed(0)
    logits = torch.randn(4000, 5, generator=draw).double()
    y = torch.multinomial((2 * logits).softmax(1), 1, generator=draw).squeeze(1)
    p = logits.softmax(1)
    threshold = conformal_threshold(class_scores(p[:1000], y[:1000]), 0.2)
    inside = prediction_sets(p[1000:], threshold).gather(1, y[1000:, None])
    assert float(inside.double().mean()) == pytest.approx(0.8, abs=0.03)
    mean, deviation, target = some(2000)
    lower, upper = mean - deviation, mean + deviation
    threshold = conformal_threshold(
        interval_scores(lower[:500], upper[:500], target[:500]), alpha=0.1
    )
    low, high = conformal_interval(lower[500:], upper[500:], threshold)
    inside = (low <= target[500:]) & (target[500:] <= high)
    assert float(inside.double().mean()) == pytest.approx(0.9, abs=0.03)
    low, high = conformal_interval(lower, upper, -100.0)
    assert torch.equal(low, high)
    with pytest.raises(ValueError, match="without NaN"):
        conformal_threshold(torch.tensor([math.nan]))


# ---------------------------------------------------------------------------- split points
def test_split_points_of_a_real_distribution_agree() -> None:
    y = torch.distributions.Exponential(1.0).sample((20000,)).double()
    r = y - y.mean()
    residual, above, below = r.abs().mean(), r[r > 0].mean(), -r[r < 0].mean()
    assert float(split_point_discrepancy(residual, above, below)) == pytest.approx(0, abs=1e-9)
    scales = split_point_scale(residual, above, below)
    assert [float(s) for s in scales] == pytest.approx([1.0, 1.0], abs=1e-9)
    assert [float(s) for s in split_point_scale(3 * residual, above, below)] == [10.0, 10.0]
    p = torch.tensor([[0.2, 0.8]])
    assert float(split_point_class_discrepancy(p, 2 * p * (1 - p))) == pytest.approx(0, abs=1e-7)
    with pytest.raises(ValueError, match=r"probabilities in \[0, 1\]"):
        split_point_class_discrepancy(3 * p, p)


# ------------------------------------------------------------------------------- two ranks
def seen(rows: slice) -> list[Any]:
    mean, deviation, target = (part[rows] for part in some(151))
    metrics: list[Any] = [GaussianCalibration(), IntervalCoverage(), ConformalThreshold()]
    metrics.append(BrierByPrediction(4))
    if len(mean):
        metrics[0].update(mean, deviation, target)
        metrics[1].update(mean - deviation, mean + deviation, target)
        metrics[2].update((target - mean).abs())
        p = torch.stack([mean, target, deviation], 1).softmax(1)
        metrics[3].update(p, (deviation * 10).long() % 3)
    return [metric.compute() for metric in metrics]


def worker(rank: int) -> Any:
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    torch.distributed.init_process_group("gloo")
    # Unequal shares, and then a rank that never sees a row.
    found = [
        seen(slice(0, 101) if rank == 0 else slice(101, None)),
        seen(slice(None) if rank == 0 else slice(0, 0)),
    ]
    torch.distributed.destroy_process_group()
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_ranks_equal_one(tmp_path: Path) -> None:
    single = seen(slice(None))
    for shares in on_ranks(worker, tmp_path):
        for found in shares:
            torch.testing.assert_close(found, single, rtol=1e-12, atol=1e-12)


def test_no_name_is_shadowed() -> None:
    """`interval_score` is of a forecast, `interval_scores` of a conformal set."""
    one = torch.ones(1)
    assert float(interval_score(-one, one, 2 * one, 0.5)) == 6
    assert float(interval_scores(-one, one, 2 * one)) == 1
