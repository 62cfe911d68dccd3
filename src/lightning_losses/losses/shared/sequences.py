# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that share an id (a response, a pair, a prompt), added up without asking the device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class Sequences(NamedTuple):
    """Which rows belong together; see `sequences`. As many slots as rows, most of them unused."""

    slot: Tensor  # (N,) int64, the same number below N for rows of one id that count
    size: Tensor  # (N,) int64 by slot: its rows that count, 0 for slots of no sequence

    @property
    def there(self) -> Tensor:
        """``(N,)`` bool by slot: whether it is a sequence with a row that counts."""
        return self.size > 0

    def total(self, rows: Tensor) -> Tensor:
        """The sum over each sequence of ``(N,)`` values by row, 0 where they do not count; by slot.

        Differentiable.
        """
        return torch.zeros_like(rows).index_add(0, self.slot, rows)

    def pick(self, rows: Tensor, valid: Tensor) -> Tensor:
        """A value by slot, of ``(N,)`` values that are the same in each sequence's valid rows."""
        place = torch.arange(len(rows), device=rows.device)
        place = torch.where(valid, place, 0)
        first = torch.zeros_like(place).scatter_reduce(0, self.slot, place, "amax")
        return rows[first]


def sequences(ids: Tensor, valid: Tensor) -> Sequences:
    """Find the rows of each id ``(N,)`` among those that count.

    By sorting: asking how many ids there are would wait for the device. A sequence must be whole on
    one rank; different ranks may use the same ids.
    """
    order = ids.argsort(stable=True)
    order = order[(~valid[order]).to(torch.int8).argsort(stable=True)]  # rows that count first
    ordered = ids[order]
    new = torch.zeros_like(order)
    new[1:] = (ordered[1:] != ordered[:-1]).long()
    slot = torch.empty_like(order).index_copy(0, order, new.cumsum(0))
    return Sequences(slot, torch.zeros_like(slot).index_add(0, slot, valid.long()))
