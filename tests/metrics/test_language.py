# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Scores of texts that may have been trained on, against loops."""

from __future__ import annotations

import math
import statistics

import pytest
import torch

from lightning_losses.metrics.language.best_of_n import best_of_n_kl_bound
from lightning_losses.metrics.language.membership import dc_pdd, min_k, moments, standardised


def test_min_k_by_loop() -> None:
    g = torch.Generator().manual_seed(0)
    log_prob = -torch.rand(4, 11, generator=g, dtype=torch.float64)
    valid = torch.arange(11) < torch.tensor([11, 10, 3, 0])[:, None]
    found = min_k(log_prob, valid).tolist()
    for i, n in enumerate((11, 10, 3)):
        lowest = sorted(log_prob[i, :n].tolist())[: max(1, int(0.2 * n))]
        assert found[i] == pytest.approx(-statistics.fmean(lowest))
    assert found[3] == 0


def test_standardised_by_sum() -> None:
    z = torch.randn(2, 3, 5, dtype=torch.float64)
    z[0, 0, 0] = -torch.inf
    z[1, 1] = 0
    mean, variance = moments(z)
    p = z.softmax(-1)[0, 1]
    assert mean[0, 1].item() == pytest.approx(float((p * p.log()).sum()))
    assert variance[0, 1].item() == pytest.approx(float((p * (p.log() - mean[0, 1]) ** 2).sum()))
    found = standardised(torch.full((2, 3), -1.0, dtype=torch.float64), mean, variance)
    assert found.isfinite().all()
    assert found[1, 1] == pytest.approx(0, abs=1e-6)


def test_dc_pdd_counts_a_token_once() -> None:
    token = torch.tensor([[3, 1, 3, 0, 3], [2, 2, 9, 9, 9]])
    valid = torch.tensor([[True] * 5, [True, True, False, False, False]])
    log_prob = torch.tensor([[-0.1, -2.3, -0.7, -5.0, -0.2], [-6.0, -1.0, 0, 0, 0]]).double()
    counts = torch.tensor([1000, 50, 5, 200])
    found = dc_pdd(log_prob, token.clamp(max=3), counts, valid).tolist()
    f = [(c + 1) / (counts.sum().item() + 4) for c in counts.tolist()]
    part = lambda lp, t: min(-math.exp(lp) * math.log(f[t]), 0.01)  # noqa: E731
    assert found[0] == pytest.approx(-(part(-0.1, 3) + part(-2.3, 1) + part(-5.0, 0)) / 3)
    assert found[1] == pytest.approx(-part(-6.0, 2))


def test_best_of_n_bound() -> None:
    assert best_of_n_kl_bound(1) == 0
    assert best_of_n_kl_bound(4) == pytest.approx(math.log(4) - 0.75)
    with pytest.raises(ValueError, match="at least 1"):
        best_of_n_kl_bound(0)
