# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Votes of annotators to soft targets: planted annotators, and what must hold of any."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import Tensor

from lightning_losses import build_objective
from lightning_losses.targets import conflation, crowd_targets, likelihood_weights
from lightning_losses.targets.crowd import Method

METHODS = get_args(Method)


def planted(rows: int = 300, classes: int = 3) -> tuple[Tensor, Tensor]:
    """Two careful annotators, three that guess, one that never votes; a tenth of votes missing."""
    draw = torch.Generator().manual_seed(0)
    truth = torch.randint(classes, (rows,), generator=draw)
    guess = torch.randint(classes, (rows, 6), generator=draw)
    chance = torch.tensor([0.95, 0.9, 0.0, 0.0, 0.0, 0.0])
    votes = torch.where(torch.rand(rows, 6, generator=draw) < chance, truth[:, None], guess)
    votes[torch.rand(rows, 6, generator=draw) < 0.1] = -1
    votes[:, 5] = -1
    return votes, truth


def test_good_annotators_are_found() -> None:
    votes, truth = planted()
    right = {
        m: float((crowd_targets(votes, 3, m).argmax(1) == truth).float().mean()) for m in METHODS
    }
    assert right["dawid_skene"] > right["votes"] + 0.05
    assert right["wawa"] > right["votes"]
    assert right["zero_based_skill"] > right["votes"]


@pytest.mark.parametrize("method", METHODS)
def test_rows_are_distributions(method: Method) -> None:
    votes, _ = planted(20)
    votes[3] = -1
    found = crowd_targets(votes, 4, method)
    assert torch.allclose(found.sum(1), torch.ones(20, dtype=torch.float64))
    assert bool((found >= 0).all())
    shuffled = crowd_targets(votes[:, torch.randperm(6)], 4, method)
    assert torch.allclose(found, shuffled, atol=1e-9)
    assert crowd_targets(votes[:0], 4, method).shape == (0, 4)
    assert crowd_targets(votes[:, :0], 4, method).shape == (20, 4)
    build_objective("ce")(torch.zeros(20, 4), found.float())


def test_shares_and_softmax_of_votes() -> None:
    votes = torch.tensor([[0, 0, 1], [2, -1, -1], [-1, -1, -1]])
    third = 1 / 3
    expected = torch.tensor([[2 / 3, third, 0], [0, 0, 1], [third, third, third]]).double()
    assert torch.allclose(crowd_targets(votes, 3), expected, atol=1e-7)
    counts = torch.tensor([[2, 1, 0], [0, 0, 1], [0, 0, 0]]).double()
    assert torch.allclose(crowd_targets(votes, 3, "softmax"), counts.softmax(1))


def test_several_targets_made_one() -> None:
    two = torch.tensor([[[0.5, 0.5, 0.0], [0.8, 0.1, 0.1]], [[1.0, 0, 0], [0, 1.0, 0]]])
    expected = torch.tensor([[8 / 9, 1 / 9, 0], [0.5, 0.5, 0]])
    assert torch.allclose(conflation(two), expected)
    assert torch.allclose(likelihood_weights(torch.tensor([1.0, 2.0])), torch.tensor([2, 1]) / 3)


def test_what_votes_may_not_be() -> None:
    votes, _ = planted(5)
    for wrong in (votes.float(), votes[0]):
        with pytest.raises(ValueError, match="needs votes"):
            crowd_targets(wrong, 3)
    with pytest.raises(ValueError, match="below num_classes=2"):
        crowd_targets(votes, 2)
    with pytest.raises(ValueError, match="one of votes"):
        crowd_targets(votes, 3, "majority")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="at least 0"):
        conflation(-torch.ones(1, 2, 3))
    with pytest.raises(ValueError, match="positive"):
        likelihood_weights(torch.zeros(2))
