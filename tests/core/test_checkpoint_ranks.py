# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""States by sample and by group, written on two ranks, go on on one rank and on three."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from ranks import on_ranks

from lightning_losses import Objective, Term
from lightning_losses.losses import CrossEntropy, TruncatedGCE
from lightning_losses.weighting import GroupDRO

pytestmark = pytest.mark.slow

ROWS, C, STEPS = 9, 4, 3

#: Rows of each rank, by the number of ranks.
PARTS = {1: (9,), 2: (5, 4), 3: (3, 0, 6)}


def objective() -> Objective:
    torch.manual_seed(0)
    # At k = 0.2 some samples are kept and others dropped.
    truncated, dro = TruncatedGCE(ROWS, k=0.2), GroupDRO(2, step_size=0.5)
    return Objective({"gce": truncated, "dro": Term(CrossEntropy(), row_weighting=dro)}).double()


def steps(objective: Objective, first: int, rank: int, ranks: int) -> list[float]:
    """The total of each step, on this rank's rows."""
    parts = PARTS[ranks]
    mine = slice(sum(parts[:rank]), sum(parts[: rank + 1]))
    totals = []
    for step in range(first, first + STEPS):
        g = torch.Generator().manual_seed(step)
        named: dict[str, Any] = {
            "logits": 2 * torch.randn(ROWS, C, generator=g, dtype=torch.float64),
            "target": torch.randint(C, (ROWS,), generator=g),
            "sample_index": torch.randperm(ROWS, generator=g),
            "group_id": torch.arange(ROWS) % 2,
        }
        named = {name: value[mine] for name, value in named.items()}
        objective.set_step(step)
        totals.append(float(objective(**named).total))
    return totals


def write(rank: int) -> list[float]:
    dist.init_process_group("gloo", rank=rank, world_size=2)
    one = objective()
    steps(one, 0, rank, 2)
    torch.save(one.state_dict(), f"written_by_{rank}.pt")
    return []


def read(rank: int) -> list[float]:
    dist.init_process_group("gloo", rank=rank, world_size=3)
    one = objective()
    one.load_state_dict(torch.load("written_by_0.pt"))
    totals = steps(one, STEPS, rank, 3)
    torch.save(one.state_dict(), f"read_by_{rank}.pt")
    return totals


def test_states_of_two_ranks_go_on_on_one_and_on_three(tmp_path: Path) -> None:
    on_ranks(write, tmp_path, 2)
    written = [torch.load(tmp_path / f"written_by_{rank}.pt") for rank in range(2)]
    torch.testing.assert_close(*written, rtol=0, atol=0)
    alone = objective()
    steps(alone, 0, 0, 1)
    torch.testing.assert_close(dict(alone.state_dict()), dict(written[0]))
    assert len(set(written[0]["terms.gce.loss.kept.values"].tolist())) == 2  # dropped and kept
    resumed = objective()
    resumed.load_state_dict(written[0])
    expected = steps(alone, STEPS, 0, 1)
    assert steps(resumed, STEPS, 0, 1) == pytest.approx(expected, rel=1e-6)
    for totals in on_ranks(read, tmp_path, 3):
        assert totals == pytest.approx(expected, rel=1e-6)
    for rank in range(3):
        state = torch.load(tmp_path / f"read_by_{rank}.pt")
        torch.testing.assert_close(dict(state), dict(alone.state_dict()))
