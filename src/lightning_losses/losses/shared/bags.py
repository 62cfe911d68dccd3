# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Means over bags of rows, wherever in the batch and on whatever rank their rows are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.distributed import gather_with_gradient


class Bags(NamedTuple):
    """The rows of all ranks with the mean of each row's bag."""

    values: Tensor  # (N, K), with gradient; 0 where a row does not count
    mean: Tensor  # (N, K), of the row's bag
    share: Tensor  # (N,) 1 / (rows of the bag * bags); they sum to 1 over rows that count, or are 0


def bags(values: Tensor, bag_id: Tensor, valid: Tensor | None) -> Bags:
    """Group rows ``(n, K)`` by ``bag_id`` ``(n,)``; bags count equally, whatever their size.

    By comparing all pairs of rows: no sort and no wait for the device.
    """
    if valid is None:
        valid = torch.ones_like(bag_id, dtype=torch.bool)
    values = gather_with_gradient(torch.where(valid[:, None], values, 0.0))
    ids, counts = gather_with_gradient(bag_id), gather_with_gradient(valid)
    together = (ids[:, None] == ids[None, :]) & counts[:, None] & counts[None, :]
    members = together.to(values.dtype)
    size = members.sum(1).clamp(min=1)
    mean = members @ values / size[:, None]
    share = counts / size
    return Bags(values, mean, share / share.sum().clamp(min=1))
