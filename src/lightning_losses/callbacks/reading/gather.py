# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`all_rows`: rows that the ranks kept of an epoch, together."""

from __future__ import annotations

import math

import torch
from lightning.pytorch import Trainer
from torch import Tensor
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_losses.callbacks.reading.stride_sample import StrideSample


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
    if trainer.world_size == 1:
        return rows
    parts = gather_all_tensors(rows.contiguous().to(trainer.strategy.root_device))
    return torch.cat([part.cpu() for part in parts])
