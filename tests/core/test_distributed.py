# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The law of data parallelism: two ranks give the value and the gradient of one rank."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import two_ranks
from ranks import start
from two_ranks import CASES, ROWS, SPLITS, evaluate, local, masked

from lightning_losses.distributed import holds_other_rows

pytestmark = [pytest.mark.slow, pytest.mark.xdist_group("distributed")]


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each of two gloo processes found, for all cases: starting them is what costs."""
    folder = tmp_path_factory.mktemp("ranks")
    start(two_ranks.work, (str(folder),), 2)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(2)]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("name", CASES)
def test_two_ranks_equal_one(ranks: list[dict[Any, Any]], name: str, split: str) -> None:
    compare(name, split, [rank[split, name] for rank in ranks])


def compare(name: str, split: str, found: list[Any]) -> None:
    """What the ranks of a split found, with what one rank finds in all rows."""
    objective, named = CASES[name]()
    expected = evaluate(objective, masked(named, split))
    for result in found:
        assert not isinstance(result, Exception), repr(result)
    assert sum(int(f["count"]) for f in found) == int(expected["count"])
    for result in found:  # the value of the global batch, on every rank
        torch.testing.assert_close(result["total"], expected["total"], rtol=1e-9, atol=1e-12)
        for term, value in expected["terms"].items():
            near = 1e-6 if "/" in term else 1e-9  # diagnostics may be float32
            torch.testing.assert_close(result["terms"][term], value, rtol=near, atol=1e-12)
    for leaf, gradient in expected["grads"].items():
        # Data-parallel training averages the gradients of parameters over ranks. A row is on one
        # rank, so its share of that average is a half, or third, of what its rank says.
        parts = [f["grads"][leaf] / len(found) for f in found]
        rowwise = "." not in leaf and leaf != "head_weight"
        average = torch.cat(parts) if rowwise else sum(parts)
        torch.testing.assert_close(average, gradient, rtol=1e-9, atol=1e-12)
    assert any(g.abs().max() > 1e-6 for g in expected["grads"].values())


# -- four ranks: a mesh, and groups of some ---------------------------------------------------


@pytest.fixture(scope="module")
def four(tmp_path_factory: pytest.TempPathFactory) -> list[dict[Any, Any]]:
    """What each of four gloo processes found, on every layout."""
    folder = tmp_path_factory.mktemp("four")
    start(two_ranks.work_on_mesh, (str(folder),), 4)
    return [torch.load(folder / f"{rank}.pt", weights_only=False) for rank in range(4)]


def all_cases(split: str, ranks: list[dict[Any, Any]]) -> None:
    """One test for all keys: what takes time is elsewhere."""
    wrong = {}
    for name in (n for n in CASES if (split, n) in ranks[0]):
        try:
            compare(name, split, [rank[split, name] for rank in ranks])
        except AssertionError as error:
            wrong[name] = str(error)
    assert not wrong


@pytest.mark.parametrize("tensor", [0, 1])
def test_a_mesh_of_data_by_tensor_ranks_equals_one(four: list[dict[Any, Any]], tensor: int) -> None:
    """Ranks 0 and 1 hold the same rows, 2 and 3 the others."""
    all_cases("unequal", four[tensor::2])


@pytest.mark.parametrize("split", two_ranks.OF_THREE)
def test_three_ranks_equal_one(four: list[dict[Any, Any]], split: str) -> None:
    all_cases(split, four[:3])


@pytest.mark.parametrize("tensor", [0, 1])
def test_logits_split_by_classes_equal_whole_ones_or_are_refused(
    four: list[dict[Any, Any]], tensor: int
) -> None:
    """And nobody said which ranks hold other rows: the DTensor's mesh does."""
    names = [key[1] for key in four[0] if key[0] == "classes"]
    refused, wrong = [], {}
    for name in names:
        found = [rank["classes", name] for rank in four[tensor::2]]
        if isinstance(found[0], ValueError) and "redistribute" in str(found[0]):
            refused.append(name)
            continue
        try:
            compare(name, "unequal", found)
        except AssertionError as error:
            wrong[name] = str(error)[:300]
    assert not wrong
    assert {"ce", "class_balanced", "focal", "ppo_clip"} <= {*names} - {*refused}
    assert {"stablemax", "kd"} <= {*refused}


def test_a_pair_loss_does_not_take_copies_for_pairs(four: list[dict[Any, Any]]) -> None:
    objective, named = two_ranks.one("supcon")
    expected = objective(**masked(named, "unequal")).total.detach()
    for rank in four:
        found = rank["copies"]
        torch.testing.assert_close(found["right"], expected)
        torch.testing.assert_close(found["given"], expected)
        # Over all ranks each row has a copy of itself for a positive: this test can fail.
        assert abs(found["copies"] - expected) > 1e-3
        assert found["pickled"] is None  # a group is known to one process only
        assert found["state"] == list(objective.state_dict())


def test_which_ranks_hold_other_rows(four: list[dict[Any, Any]]) -> None:
    for rank, found in enumerate(four):
        assert found["hybrid"] is None  # all of them
        assert found["several"] is None
        assert found["alone"] == "alone"
        assert found["three"] == [rank % 2, rank % 2 + 2]
        assert found["context"] == [rank % 2, rank % 2 + 2]


def test_gather_within_a_group(four: list[dict[Any, Any]]) -> None:
    for tensor in range(2):
        check_gathered([rank["gather"] for rank in four[tensor::2]])


def test_a_name_that_says_nothing_is_refused() -> None:
    with pytest.raises(ValueError, match=r"'expert'.*group="):
        holds_other_rows("expert")
    with pytest.raises(ValueError, match="mesh_dim_names"):
        holds_other_rows(None)
    assert holds_other_rows("dp_shard_cp")
    assert not holds_other_rows("TP")


def test_gather_with_unequal_rows(ranks: list[dict[Any, Any]]) -> None:
    check_gathered([rank["gather"] for rank in ranks])


def check_gathered(found: list[Any]) -> None:
    own = [one[0] for one in found]
    assert [len(rows) for rows in own] == [1, 2]
    for rank, (rows, together, grad, offset) in enumerate(found):
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
