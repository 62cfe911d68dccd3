# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The law of data parallelism: two ranks give the value and the gradient of one rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import two_ranks
from torch import multiprocessing
from two_ranks import CASES, ROWS, SPLITS, evaluate, local, masked

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each of two gloo processes found, for all cases: starting them is what costs."""
    folder = tmp_path_factory.mktemp("ranks")
    multiprocessing.spawn(two_ranks.work, (str(folder),), nprocs=2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(ranks: list[dict[Any, Any]], name: str, split: str) -> None:
    objective, named = CASES[name]()
    expected = evaluate(objective, masked(named, split))
    found = [rank[split, name] for rank in ranks]
    for result in found:
        assert not isinstance(result, Exception), repr(result)
    assert sum(int(f["count"]) for f in found) == int(expected["count"])
    for result in found:  # the value of the global batch, on every rank
        torch.testing.assert_close(result["total"], expected["total"], rtol=1e-9, atol=1e-12)
        for term, value in expected["terms"].items():
            torch.testing.assert_close(result["terms"][term], value, rtol=1e-9, atol=1e-12)
    for leaf, gradient in expected["grads"].items():
        # Data-parallel training averages the gradients of parameters over ranks. A row is on one
        # rank, so its share of that average is half of what its rank says.
        parts = [f["grads"][leaf] / 2 for f in found]
        rowwise = "." not in leaf and leaf != "head_weight"
        average = torch.cat(parts) if rowwise else sum(parts)
        torch.testing.assert_close(average, gradient, rtol=1e-9, atol=1e-12)
    assert any(g.abs().max() > 1e-6 for g in expected["grads"].values())


def test_gather_with_unequal_rows(ranks: list[dict[Any, Any]]) -> None:
    own = [rank["gather"][0] for rank in ranks]
    assert [len(rows) for rows in own] == [1, 2]
    for rank, (rows, together, grad, offset) in enumerate(r["gather"] for r in ranks):
        assert torch.equal(together, torch.cat(own))
        assert offset == rank
        # Each rank's wish arrives: 1 times and 2 times the gradient 2 x of the square.
        torch.testing.assert_close(grad, (1 + 2) * 2 * rows)


def test_without_gradient_nobody_waits(ranks: list[dict[Any, Any]]) -> None:
    objective, named = two_ranks.one("opl")
    expected = objective(**local(named, "unequal", 0)).total
    torch.testing.assert_close(ranks[0]["alone"], expected.detach())


def test_one_process_is_left_alone() -> None:
    from lightning_losses import distributed

    x = torch.arange(ROWS, dtype=torch.float32).requires_grad_()
    assert distributed.world_size() == 1
    assert distributed.gather_with_gradient(x) is x
    assert distributed.reduce_with_gradient(x) is x
    assert distributed.row_offset(x) == 0
    for reduced in (distributed.all_sum(x), distributed.all_max(x)):
        assert torch.equal(reduced, x.detach())
        assert not reduced.requires_grad
