# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the ranks that hold other rows know, together; on a mesh not the copies of the same rows.

Every rank must come to these functions, in the same order.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_losses.callbacks.reading.module_tree import objectives_of
from lightning_losses.callbacks.reading.stride_sample import StrideSample
from lightning_losses.distributed import ALONE, ranks_of_strategy


def row_ranks(trainer: Trainer) -> Any:
    """The group of ranks that hold other rows; see `distributed.over`."""
    given = [one.group for one in objectives_of(trainer.lightning_module)[:1]]
    return given[0] if given and given[0] is not None else ranks_of_strategy(trainer.strategy)


def num_row_ranks(trainer: Trainer) -> int:
    """How many ranks hold other rows, with this one."""
    group = None if trainer.world_size == 1 else row_ranks(trainer)
    if trainer.world_size == 1 or group is ALONE:
        return 1
    return dist.get_world_size(group)


def row_rank(trainer: Trainer) -> int:
    """Which of the ranks that hold other rows this one is."""
    return 0 if num_row_ranks(trainer) == 1 else dist.get_rank(row_ranks(trainer))


def stacked(trainer: Trainer, value: Tensor) -> Tensor:
    """A tensor of one shape on every rank, as ``(ranks, ...)``."""
    ranks = num_row_ranks(trainer)
    if ranks == 1:
        return value[None]
    value = value.detach().contiguous()
    every = [torch.empty_like(value) for _ in range(ranks)]
    dist.all_gather(every, value, group=row_ranks(trainer))
    return torch.stack(every)


def summed(trainer: Trainer, value: Tensor) -> Tensor:
    """The sum over ranks, entry by entry."""
    return _reduced(trainer, value, dist.ReduceOp.SUM)


def largest(trainer: Trainer, value: Tensor) -> Tensor:
    """The largest over ranks, entry by entry."""
    return _reduced(trainer, value, dist.ReduceOp.MAX)


def _reduced(trainer: Trainer, value: Tensor, op: Any) -> Tensor:
    if num_row_ranks(trainer) == 1:
        return value
    value = value.detach().clone()
    dist.all_reduce(value, op=op, group=row_ranks(trainer))
    return value


def all_rows(
    trainer: Trainer, kept: StrideSample, max_rows: int, dtype: torch.dtype = torch.float64
) -> tuple[Tensor, Tensor] | str:
    """Rows ``(N, D)`` and integers ``(N,)`` kept by all ranks, in rank order, on the CPU.

    Every rank must come here, with or without rows. A text says what is wrong: rows of different
    lengths.

    Args:
        trainer: knows the ranks.
        kept: pairs of rows and integers, of this rank.
        max_rows: of more than these, evenly spaced ones are returned.
        dtype: of the rows.
    """
    parts = kept.parts()
    widths = sorted({rows.shape[1] for rows, _ in parts})
    wide = gather(trainer, torch.tensor([[min(widths, default=-1), max(widths, default=-1)]]))
    widths = sorted(set(wide[wide >= 0].tolist()))
    if len(widths) > 1:
        return f"rows of an epoch have different lengths, {widths[0]} to {widths[-1]}"
    # A rank without rows joins in as well, or the others would wait for it.
    empty = torch.zeros(0, widths[0] if widths else 0, dtype=dtype)
    rows = gather(trainer, torch.cat([empty, *(rows.to(dtype) for rows, _ in parts)]))
    target = gather(trainer, torch.cat([torch.zeros(0).long(), *(y.long() for _, y in parts)]))
    stride = max(1, math.ceil(len(rows) / max_rows))
    return rows[::stride], target[::stride]


def gather(trainer: Trainer, rows: Tensor) -> Tensor:
    """Rows ``(n, ...)`` of all ranks, in rank order, on the CPU; n may differ."""
    if num_row_ranks(trainer) == 1:
        return rows
    own = rows.contiguous().to(trainer.strategy.root_device)
    parts = gather_all_tensors(own, row_ranks(trainer))
    return torch.cat([part.cpu() for part in parts])
