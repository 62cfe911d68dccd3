# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which actions drive entropy down: the covariance of advantage and log-probability."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.distributed import all_sum, gather_with_gradient, row_offset


def token_covariance(advantage: Tensor, log_prob: Tensor, valid: Tensor | None = None) -> Tensor:
    """``(A - mean A)(log p - mean log p)`` of each row, 0 where not valid; without gradient.

    Means are over the valid rows of all ranks. The mean of the result is the covariance whose
    negative drives the change of entropy in a step (Cui et al., "The Entropy Mechanism of
    Reinforcement Learning", arXiv 2505.22617): positive, and entropy falls.

    Args:
        advantage: ``(N,)``.
        log_prob: ``(N,)`` nats.
        valid: ``(N,)`` bool, or None for all.
    """
    log_prob = log_prob.detach()
    both = torch.stack([advantage.detach().to(log_prob.dtype), log_prob])
    valid = torch.ones_like(log_prob, dtype=torch.bool) if valid is None else valid
    both = torch.where(valid, both, 0.0)
    sums = all_sum(torch.cat([both.sum(1), valid.sum()[None].to(both.dtype)]))
    means = sums[:2] / sums[2].clamp(min=1)
    return torch.where(valid, (both - means[:, None]).prod(0), 0.0)


def first(order: Tensor, ratio: float, valid: Tensor) -> Tensor:
    """Which rows have the ``max(1, ratio * number of valid rows)`` smallest keys, of all ranks.

    No rank waits for the device. Rows with a key of inf are never taken.

    Args:
        order: ``(N,)`` keys; ties go to the first row of the first rank.
        ratio: a fraction in [0, 1].
        valid: ``(N,)`` bool, the rows that the ratio is of.

    Returns:
        ``(N,)`` bool, the rows of this rank.
    """
    start, everyone = row_offset(order), gather_with_gradient(order)
    place = everyone.argsort(stable=True).argsort() + 1
    wanted = ratio * all_sum(valid.sum()).to(order.dtype)
    taken = ((place <= wanted) | (place == 1)) & everyone.isfinite()
    return taken[start : start + len(order)]


def shuffled(rows: Tensor, seed: int) -> Tensor:
    """A number in [0, 1) for each of the rows that are True, by their count so far; else inf.

    The numbers depend on the seed and on how many rows that are True come before, on lower ranks
    too: neither on the device, nor on the number of ranks, nor on a global random state.
    """
    everyone, start = gather_with_gradient(rows), row_offset(rows)
    x = everyone.cumsum(0) + seed * 0x9E3779B1
    for multiplier in (0x85EBCA6B, 0xC2B2AE35):  # the finaliser of MurmurHash3, 32 bits
        x = x & 0xFFFFFFFF
        x = ((x ^ (x >> 16)) * multiplier) & 0xFFFFFFFF
        x = x ^ (x >> 13)
    key = torch.where(everyone, (x & 0xFFFFFF).float() / 2**24, torch.inf)
    return key[start : start + len(rows)]
