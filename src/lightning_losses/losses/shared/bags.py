# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Means over bags of rows, wherever in the batch and on whatever rank their rows are."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.rows_math import LOWEST


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
    members, size, share = _members(ids, counts, values.dtype)
    mean = members @ values / size[:, None]
    return Bags(values, mean, share)


def log_mean_of_bags(
    log_values: Tensor, bag_id: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    """``log`` of the mean over each row's bag of ``exp(log_values)`` ``(N, K)``, and `Bags.share`.

    About the largest of the bag, so that a bag in which every value is tiny keeps its gradient.
    """
    if valid is None:
        valid = torch.ones_like(bag_id, dtype=torch.bool)
    x = gather_with_gradient(torch.where(valid[:, None], log_values, LOWEST))
    ids, counts = gather_with_gradient(bag_id), gather_with_gradient(valid)
    members, size, share = _members(ids, counts, x.dtype)
    if not x.numel():
        return x, share
    # The first row of a bag stands for it: no sort, and nothing that the device is asked for.
    first = members.argmax(1)[:, None].expand_as(x)
    top = torch.full_like(x, LOWEST).scatter_reduce(0, first, x.detach(), "amax").gather(0, first)
    e = (x - top).exp() * counts[:, None]
    mean = members @ e / size[:, None]
    return top + torch.where(counts[:, None], mean, 1.0).log(), share


def _members(ids: Tensor, counts: Tensor, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """1 where rows share a bag ``(N, N)``, how many do ``(N,)``, and `Bags.share`."""
    together = (ids[:, None] == ids[None, :]) & counts[:, None] & counts[None, :]
    members = together.to(dtype)
    size = members.sum(1).clamp(min=1)
    share = counts / size
    return members, size, share / share.sum().clamp(min=1)
