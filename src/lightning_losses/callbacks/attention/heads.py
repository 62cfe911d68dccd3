# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From what the ranks saw of attention to plain numbers, a head each."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer

from lightning_losses.callbacks.reading.gather import num_row_ranks, stacked
from lightning_losses.metrics.entropy.attention import AttentionEntropy


class Head(NamedTuple):
    """One head of one layer, over the rows of all ranks."""

    layer: str
    head: int
    entropy: float
    fraction: float
    lower_bound: float
    max_logit: float
    rows: float

    def cells(self) -> tuple[Any, ...]:
        """What the table shows, in order."""
        return self[:-1]


def same_layers(
    trainer: Trainer, seen: Mapping[str, AttentionEntropy]
) -> Mapping[str, AttentionEntropy] | None:
    """The layers, if every rank saw the same ones; None otherwise, on every rank."""
    if num_row_ranks(trainer) == 1:
        return seen
    # Ranks must not gather what differs in shape, so first they compare; the sum of byte values
    # times places stands for the names.
    text = "\n".join(f"{name} {len(one.entropy)}" for name, one in seen.items()).encode()
    mark = sum(place * byte for place, byte in enumerate(text, 1)) % (1 << 31)
    own = torch.tensor([mark, len(text)], device=trainer.strategy.root_device)
    marks = stacked(trainer, own)
    return seen if bool((marks == marks[0]).all()) else None


def heads_of(trainer: Trainer, seen: Mapping[str, AttentionEntropy]) -> list[Head]:
    """Every head; asks the device once, and every rank for its sums."""
    if not seen:
        return []
    packed = torch.cat(
        [
            torch.stack(
                [
                    one.entropy * one.rows,
                    one.fraction * one.rows_of_fraction,
                    one.lower_bound * one.rows,
                    one.max_logit,
                    one.rows,
                    one.rows_of_fraction,
                ],
                1,
            ).float()
            for one in seen.values()
        ]
    )  # (heads of all layers, 6)
    gathered = stacked(trainer, packed)
    packed = gathered.sum(0)
    packed[:, 3] = gathered[:, :, 3].amax(0)
    names = [(layer, i) for layer, one in seen.items() for i in range(len(one.entropy))]
    heads = []
    for (layer, i), row in zip(names, packed.tolist(), strict=True):
        entropy, fraction, bound, max_logit, rows, several = row
        some = max(rows, 1.0)
        bound = bound / some if rows else math.nan
        heads.append(
            Head(layer, i, entropy / some, fraction / max(several, 1.0), bound, max_logit, rows)
        )
    return heads
