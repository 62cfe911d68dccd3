# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One policy for several ranks: gradients and values as if one rank had the whole batch.

Data-parallel training averages gradients over ranks. So a sum over local rows is divided by the
*global* count and multiplied by the world size; columns are gathered with gradient, whose backward
adds what every rank wants of a column; batch statistics are summed with gradient. Then the average
over ranks is the gradient of the global loss, whatever rows were ignored where.

Values are synchronised while gradients are enabled. Without gradient (validation) every rank
reports its own batch, because ranks may have different numbers of batches and would wait forever.
"""

from __future__ import annotations

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor


def world_size() -> int:
    """Number of ranks that train together; 1 where nothing is to be synchronised."""
    if not (dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()):
        return 1
    return dist.get_world_size()


def all_sum(value: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    if world_size() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value)
    return value


def all_max(value: Tensor) -> Tensor:
    """Largest over ranks, without gradient."""
    if world_size() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX)
    return value


def reduce_with_gradient(value: Tensor) -> Tensor:
    """Sum over ranks, with gradient; for statistics of a batch (scope ``batch``)."""
    return value if world_size() == 1 else dist_nn.all_reduce(value)  # type: ignore[no-untyped-call]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Rows ``(n, ...)`` of all ranks in rank order, ``(N, ...)``; for scope ``pairs``.

    Ranks may have different n. Integer and bool tensors travel without gradient.
    """
    if world_size() == 1:
        return rows
    counts = _counts(rows)
    width = max(counts)
    padded = torch.cat([rows, rows.new_zeros(width - len(rows), *rows.shape[1:])])
    if rows.is_floating_point():
        parts = list(dist_nn.all_gather(padded.contiguous()))  # type: ignore[no-untyped-call]
    else:
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded.contiguous())
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def row_offset(rows: Tensor) -> int:
    """Where this rank's rows begin in what `gather_with_gradient` returns."""
    if world_size() == 1:
        return 0
    return sum(_counts(rows)[: dist.get_rank()])


def _counts(rows: Tensor) -> list[int]:
    count = torch.tensor([len(rows)], device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size())]
    dist.all_gather(counts, count)
    return [int(c) for c in counts]
