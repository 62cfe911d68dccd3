# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Errors found, risk and coverage, CORP, log-odds smoothing, kernels, groups: against loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.isotonic import IsotonicRegression
from sklearn.metrics import average_precision_score
from torch import Tensor

from lightning_losses.metrics import (
    BrierByPrediction,
    StreamingCalibration,
    brier_corp,
    ece_kde,
    loo_bandwidth,
)
from lightning_losses.metrics.calibration.isotonic_means import isotonic_means
from lightning_losses.metrics.calibration.ranking import (
    auprc_error,
    coverage_at_risk,
    risk_at_coverage,
)
from lightning_losses.metrics.calibration.smooth import smece_auto, smece_logit

# Few different values, so that there are ties, and few enough rows for every kind of end.
ROWS = st.lists(st.tuples(st.integers(0, 20), st.booleans()), min_size=1, max_size=40)


def measured(rows: list[tuple[int, bool]]) -> tuple[np.ndarray, np.ndarray, StreamingCalibration]:
    c, a = np.array([k / 20 for k, _ in rows]), np.array([float(right) for _, right in rows])
    metric = StreamingCalibration(fine_bins=64)  # enough for twentieths
    metric.update(torch.from_numpy(c), torch.from_numpy(a))
    return c, a, metric


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_precision_of_finding_errors_is_that_of_scikit_learn(rows: list[tuple[int, bool]]) -> None:
    c, a, metric = measured(rows)
    found = float(auprc_error(metric.fine_bins))
    if a.all():
        assert math.isnan(found)
    else:
        assert found == pytest.approx(average_precision_score(1 - a, 1 - c))


def risks_of(c: np.ndarray, a: np.ndarray) -> list[float]:
    shared = np.array([a[c == value].mean() for value in c])
    wrong = np.cumsum(1 - shared[np.argsort(-c, kind="stable")])
    return [float(w) / k for k, w in enumerate(wrong, start=1)]


@settings(max_examples=30, deadline=None)
@given(ROWS, st.sampled_from([0.05, 0.3, 0.8, 1.0]))
def test_risk_and_coverage_are_those_of_sorted_rows(
    rows: list[tuple[int, bool]], share: float
) -> None:
    c, a, metric = measured(rows)
    risks, n = risks_of(c, a), len(c)
    k = next(k for k in range(1, n + 1) if k >= share * n - 1e-9)
    assert float(risk_at_coverage(metric.fine_bins, share)) == pytest.approx(risks[k - 1])
    safe = [k for k, risk in enumerate(risks, start=1) if risk <= share + 1e-12]
    found = float(coverage_at_risk(metric.fine_bins, share))
    assert found == pytest.approx(safe[-1] / n if safe else 0)


def test_nothing_seen_has_no_risk() -> None:
    fine = StreamingCalibration().fine_bins
    for measure in (auprc_error, risk_at_coverage, coverage_at_risk):
        assert math.isnan(float(measure(fine)))
    for wrong in (0.0, 1.5):
        with pytest.raises(ValueError, match="coverage must be in"):
            risk_at_coverage(fine, wrong)
    with pytest.raises(ValueError, match="risk must be in"):
        coverage_at_risk(fine, 5)


@settings(max_examples=30, deadline=None)
@given(ROWS)
def test_corp_is_isotonic_regression(rows: list[tuple[int, bool]]) -> None:
    c, a, metric = measured(rows)
    found = {
        name: float(v) for name, v in brier_corp(metric.bins, metric.fine_bins)._asdict().items()
    }
    fitted = IsotonicRegression().fit(c, a).predict(c)
    score, recalibrated = ((c - a) ** 2).mean(), ((fitted - a) ** 2).mean()
    spread = a.mean() * (1 - a.mean())
    expected = {
        "brier": score,
        "miscalibration": score - recalibrated,
        "discrimination": spread - recalibrated,
        "uncertainty": spread,
    }
    assert found == pytest.approx(expected, abs=1e-9)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.floats(-5, 5), st.integers(0, 3)), min_size=1, max_size=12))
def test_isotonic_means_pool_adjacent_violators(groups: list[tuple[float, int]]) -> None:
    values, weights = (np.array(part, dtype=float) for part in zip(*groups, strict=True))
    found = isotonic_means(torch.tensor(values * weights), torch.tensor(weights)).numpy()
    kept = weights > 0
    if kept.any():
        x = np.arange(len(values))[kept]
        expected = IsotonicRegression().fit(x, values[kept], weights[kept]).predict(x)
        assert found[kept] == pytest.approx(expected, abs=1e-6)
    assert np.isfinite(found).all()


def test_smoothing_in_log_odds() -> None:
    rows = torch.Generator().manual_seed(0)
    c = torch.rand(300, generator=rows, dtype=torch.float64)
    a = (torch.rand(300, generator=rows) < c.square()).double()
    metric = StreamingCalibration(fine_bins=2**14)
    metric.update(c, a)
    at, grid = c.clamp(1e-3, 1 - 1e-3).logit(), torch.linspace(-25, 25, 20001).double()
    for sigma in (0.02, 0.3):
        width = 4 * sigma
        excess = (-((grid[:, None] - at) / width).square() / 2).exp() @ (c - a)
        area = float(torch.trapezoid(excess.abs(), grid)) / (width * math.sqrt(2 * math.pi) * 300)
        assert float(smece_logit(metric.fine_bins, sigma)) == pytest.approx(area, abs=1e-4)
    error, width = smece_auto(metric.fine_bins, "logit")
    assert 0 < width - error < 0.01
    with pytest.raises(ValueError, match="sigma in"):
        smece_logit(metric.fine_bins, 0.0)
    with pytest.raises(ValueError, match="kernel must be"):
        smece_auto(metric.fine_bins, "odds")  # type: ignore[arg-type]


# -------------------------------------------------------------------------------- kernels
def by_loop(p: Tensor, y: Tensor, width: float, power: float) -> float:
    total, count = 0.0, 0
    for i, row in enumerate(p):
        others = [j for j in range(len(p)) if j != i]
        weight = torch.stack(
            [torch.distributions.Dirichlet(p[j] / width + 1).log_prob(row).exp() for j in others]
        )
        if float(weight.sum()) > 0:
            seen = sum(w * torch.eye(p.shape[1])[y[j]] for w, j in zip(weight, others, strict=True))
            total += float((seen / weight.sum() - row).abs().pow(power).sum())
            count += 1
    return total / count


def some(n: int = 12, classes: int = 3) -> tuple[Tensor, Tensor]:
    draw = torch.Generator().manual_seed(3)
    logits = torch.randn(n, classes, generator=draw, dtype=torch.float64)
    return logits.softmax(1), torch.randint(classes, (n,), generator=draw)


def test_kernels_on_the_simplex_by_a_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    p, y = some()
    for width in (0.05, 0.5):
        for power in (1.0, 2.0):
            assert float(ece_kde(p, y, width, power)) == pytest.approx(by_loop(p, y, width, power))
    marginal = sum(
        by_loop(torch.stack([1 - p[:, k], p[:, k]], 1), (y == k).long(), 0.1, 1) / 2
        for k in range(3)
    )
    assert float(ece_kde(p, y, 0.1, kind="marginal")) == pytest.approx(marginal)
    whole = [ece_kde(p, y, 0.1, kind=k) for k in ("canonical", "marginal", "top_label")]
    chosen = loo_bandwidth(p)
    monkeypatch.setattr("lightning_losses.metrics.calibration.kernel_ece.LARGE", 40)
    again = [ece_kde(p, y, 0.1, kind=k) for k in ("canonical", "marginal", "top_label")]
    assert torch.allclose(torch.stack(whole), torch.stack(again))
    assert loo_bandwidth(p) == chosen
    assert float(ece_kde(p, y)) == float(ece_kde(p, y, chosen))


def test_kernels_at_the_ends_of_the_simplex() -> None:
    # Certain rows: of their own corner the neighbours are exact, of the others nothing.
    p = torch.eye(3).repeat(4, 1)
    y = torch.arange(3).repeat(4)
    assert float(ece_kde(p, y, 0.1)) == 0
    assert float(ece_kde(p, (y + 1) % 3, 0.1)) == 2
    lonely = torch.eye(3)  # no row is near another
    assert math.isnan(float(ece_kde(lonely, torch.arange(3), 0.1)))
    for n in (0, 1):
        assert math.isnan(float(ece_kde(p[:n], y[:n])))
    with pytest.raises(ValueError, match="bandwidth must be positive"):
        ece_kde(p, y, 0.0)


# ----------------------------------------------------------------------- groups of predictions
def test_brier_by_prediction_adds_up() -> None:
    p, y = some(60, 4)
    metric = BrierByPrediction(max_classes=6)
    valid = torch.arange(60) % 5 != 0
    for rows in torch.arange(60).split(17):
        metric.update(p[rows], y[rows], valid[rows])
    found = metric.compute()
    hot = torch.eye(4, dtype=torch.float64)[y]
    q, hot, group = p[valid], hot[valid], p[valid].argmax(1)
    assert float(found["brier"]) == pytest.approx(float((q - hot).square().sum(1).mean()))
    parts = ("reliability", "resolution", "uncertainty")
    by_group = dict.fromkeys(parts[:2], 0.0)
    for k in group.unique():
        own = group == k
        mean, share = q[own].mean(0), hot[own].mean(0)
        by_group["reliability"] += float(own.double().mean() * (mean - share).square().sum())
        by_group["resolution"] += float(own.double().mean() * (share - hot.mean(0)).square().sum())
    assert {name: float(found[name]) for name in by_group} == pytest.approx(by_group)
    rel, res, unc = (found[name] for name in parts)
    total = rel - res + unc + found["within_group_variance"] - found["within_group_covariance"]
    assert float(total) == pytest.approx(float(found["brier"]))
    empty = BrierByPrediction()
    empty.update(p[:0], y[:0])
    assert math.isnan(float(empty.compute()["brier"]))
