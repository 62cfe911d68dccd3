# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The queue: what pair losses see of earlier batches, on one rank and two, and after a resume."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import on_ranks

from lightning_losses import Objective, build_objective
from lightning_losses.losses import SupCon
from lightning_losses.providers import Queue

SIZE, DIM, STEPS = 7, 3, 4


def batches() -> list[dict[str, torch.Tensor]]:
    g = torch.Generator().manual_seed(0)
    return [
        {
            "features": torch.randn(5, DIM, generator=g),
            "target": torch.randint(2, (5,), generator=g),
        }
        for _ in range(STEPS)
    ]


def with_queue() -> Objective:
    node = {"_target_": "lightning_losses.providers.Queue", "size": SIZE, "dim": DIM}
    return build_objective({"supcon": {"provider": {"ref_features": node}}})


def train(objective: Objective, steps: list[dict[str, torch.Tensor]]) -> list[Any]:
    """Total and gradient of each step."""
    out = []
    for named in steps:
        x = named["features"].clone().requires_grad_()
        record = objective(**{**named, "features": x})
        record.total.backward()
        out.append((record.total.detach(), x.grad))
    return out


def test_is_the_loss_on_what_was_before() -> None:
    """By hand: the last rows of the earlier batches, and nobody in the first step."""
    objective, past, labels = with_queue(), torch.zeros(0, DIM), torch.zeros(0, dtype=torch.int64)
    steps = batches()
    for i, (named, (total, grad)) in enumerate(zip(steps, train(objective, steps), strict=True)):
        if i == 0:
            assert total == 0
            assert grad is not None
            assert not grad.any()
        else:
            plain = Objective({"supcon": SupCon()})
            ref = {"ref_features": past[-SIZE:], "ref_target": labels[-SIZE:]}
            torch.testing.assert_close(total, plain(**named, **ref).total)
            assert grad.abs().max() > 0
        past, labels = torch.cat([past, named["features"]]), torch.cat([labels, named["target"]])


def test_goes_on_after_a_resume_and_rests_in_validation() -> None:
    steps = batches()
    whole, first, second = with_queue(), with_queue(), with_queue()
    expected = train(whole, steps)
    train(first, steps[:2])
    second.load_state_dict(first.state_dict())
    with torch.no_grad():
        second(**steps[0])
    second.eval()
    second(**steps[0])
    second.train()
    torch.testing.assert_close(train(second, steps[2:]), expected[2:])


def test_rows_that_do_not_count_have_no_label() -> None:
    objective = with_queue()
    x = torch.randn(2, 2, DIM)
    x[1] = torch.nan
    objective(features=x, target=torch.tensor([1, 0]), mask=torch.tensor([True, False]))
    queue = objective.providers["ref_features"]
    assert isinstance(queue, Queue)
    assert queue.target.tolist() == [-1, -1, -1, 1, 1, -1, -1]
    assert queue.features.isfinite().all()


@pytest.mark.parametrize("named", [{}, {"target": torch.zeros(2).long(), "wide": True}])
def test_says_what_it_needs(named: dict[str, Any]) -> None:
    x = torch.randn(2, DIM + (1 if named.pop("wide", False) else 0))
    with pytest.raises(ValueError, match="write"):
        with_queue()(features=x, **named)


def rank_rows(rank: int) -> list[Any]:
    """What a rank finds with unequal shares, three rows and two, and what its queue then holds."""
    dist.init_process_group("gloo")
    mine = slice(0, 3) if rank == 0 else slice(3, 5)
    objective = with_queue()
    found = train(objective, [{k: v[mine] for k, v in named.items()} for named in batches()])
    dist.destroy_process_group()
    return [found, list(objective.state_dict().values())]


def test_two_ranks_equal_one(tmp_path: Path) -> None:
    objective = with_queue()
    expected = train(objective, batches())
    (first, queue), (second, other) = on_ranks(rank_rows, tmp_path)
    for kept in (queue, other):
        torch.testing.assert_close(kept, list(objective.state_dict().values()))
    for (total, grad), (a, of_a), (b, of_b) in zip(expected, first, second, strict=True):
        torch.testing.assert_close(a, total)
        torch.testing.assert_close(b, total)
        torch.testing.assert_close(torch.cat([of_a, of_b]) / 2, grad)
