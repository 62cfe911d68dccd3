# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Measures by group and scores of samples, against loops and autograd."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lightning_losses.metrics.groups.by_group import (
    by_group,
    js_distance,
    quantile_bins,
    worst_group,
)
from lightning_losses.metrics.sample_value.history import SampleHistory
from lightning_losses.metrics.sample_value.scores import (
    el2n,
    errors,
    last_layer_norm,
    margin,
    mean_gradient,
    tracin,
)
from lightning_losses.softmax import softmax_stats


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(-3, 3), min_size=1, max_size=30), st.integers(2, 5))
def test_quantile_bins_as_numpy_has_them(values: list[int], bins: int) -> None:
    x = torch.tensor(values, dtype=torch.float64)  # few values: edges coincide
    edges, place = quantile_bins(x, bins)
    expected = np.quantile(x.numpy(), np.linspace(0, 1, bins + 1))
    assert edges.tolist() == pytest.approx(expected.tolist(), abs=1e-12)
    for value, k in zip(values, place.tolist(), strict=True):
        last = k == bins - 1
        assert edges[k] <= value + 1e-12
        assert value < edges[k + 1] or last or edges[k + 1] == edges[k]


def test_groups_merge_and_the_worst_has_enough_rows() -> None:
    g = torch.Generator().manual_seed(0)
    ids = torch.randint(-2, 3, (40,), generator=g) * 10**9  # not contiguous, not small
    rows = torch.randn(40, 2, generator=g, dtype=torch.float64)
    whole = by_group(ids, rows)
    parts = [by_group(ids[a:b], rows[a:b]) for a, b in ((0, 7), (7, 7), (7, 40))]
    merged = by_group(
        torch.cat([p.ids for p in parts]),
        torch.cat([p.sums for p in parts]),
        torch.cat([p.count for p in parts]),
    )
    for a, b in zip(whole, merged, strict=True):
        torch.testing.assert_close(a, b)
    for i, k in enumerate(whole.ids):
        torch.testing.assert_close(whole.means[i], rows[ids == k].mean(0))
    value, count = torch.tensor([5.0, 2.0, 1.0]), torch.tensor([1.0, 9.0, 9.0])
    worst = worst_group(value, count, 2)
    assert worst is not None
    assert (worst.place, worst.to_best) == (1, 1.0)
    assert worst.to_mean == pytest.approx(2 - (5 + 18 + 9) / 19)
    assert worst_group(value, count, 10) is None


def test_js_distance_by_scipy() -> None:
    from scipy.spatial.distance import jensenshannon

    p, q = torch.tensor([0.5, 0.5, 0.0]), torch.tensor([0.0, 0.1, 0.9])
    for base in (math.e, 2.0):
        found = float(js_distance(p.double(), q.double(), base))
        assert found == pytest.approx(jensenshannon(p, q, base), rel=1e-6)
    assert float(js_distance(p, p)) == 0
    assert float(js_distance(torch.eye(2)[0], torch.eye(2)[1], 2.0)) == pytest.approx(1)


def test_scores_are_gradients() -> None:
    torch.manual_seed(0)
    layer = torch.nn.Linear(3, 4).double()
    x, y = torch.randn(6, 3, dtype=torch.float64), torch.randint(4, (6,))
    xv, yv = torch.randn(5, 3, dtype=torch.float64), torch.randint(4, (5,))

    def gradient(rows: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        loss = torch.nn.functional.cross_entropy(layer(rows), labels)
        grads = torch.autograd.grad(loss, [layer.weight, layer.bias])
        return torch.cat([grads[0], grads[1][:, None]], 1)

    logits = layer(x).detach()
    error = errors(logits, y)
    stats = softmax_stats(logits, target=y)
    assert stats.log_prob is not None
    assert stats.collision is not None
    score = el2n(stats.log_prob, stats.collision)
    torch.testing.assert_close(score, error.norm(dim=1))
    mean = mean_gradient(errors(layer(xv).detach(), yv), xv)
    torch.testing.assert_close(mean, gradient(xv, yv))
    effect = tracin(error, x, mean)
    for i in range(6):
        own = gradient(x[i : i + 1], y[i : i + 1])
        assert float(last_layer_norm(score, x)[i]) == pytest.approx(float(own.norm()))
        assert float(effect[i]) == pytest.approx(float((own * mean).sum()))
        others = [float(z) for k, z in enumerate(logits[i]) if k != int(y[i])]
        assert float(margin(logits, y)[i]) == pytest.approx(float(logits[i, y[i]]) - max(others))


def test_el2n_of_a_sure_row_keeps_its_digits() -> None:
    """1 - p is 1e-4, whose square is lost beside 1 in float32; within a factor of the root of 2."""
    z = torch.tensor([[0.0, math.log(1e-4), -1e3]])
    stats = softmax_stats(z, target=torch.tensor([0]))
    assert stats.log_prob is not None
    assert stats.collision is not None
    found = float(el2n(stats.log_prob, stats.collision))
    assert found == pytest.approx(math.sqrt(2) * 1e-4, rel=0.3)


@settings(max_examples=30, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 4), st.booleans()), max_size=40), st.integers(1, 9))
def test_history_by_loop(shown: list[tuple[int, bool]], size: int) -> None:
    history = SampleHistory()
    for begin in range(0, len(shown), size):  # a sample may be several times in a batch
        part = shown[begin : begin + size]
        index = torch.tensor([i for i, _ in part])
        right = torch.tensor([r for _, r in part])
        values = index[:, None].double().expand(-1, 4)
        history.add(index, right, values, index, index)
    table = history.table()
    for row, i in enumerate(table["sample_index"].tolist()):
        rights = [r for j, r in shown if j == i]
        assert int(table["presentations"][row]) == len(rights)
        events = sum(a and not b for a, b in itertools.pairwise(rights))
        assert int(table["forgotten"][row]) == events
        assert int(table["learned"][row]) == (rights.index(True) + 1 if any(rights) else 0)
        assert float(table["el2n"][row]) == i
    assert len(table["sample_index"]) == len({i for i, _ in shown})
    again = SampleHistory()
    again.load_state_dict(history.state_dict())
    assert all(torch.equal(v, table[k]) for k, v in again.table().items())
