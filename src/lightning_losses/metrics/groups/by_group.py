# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Means by group, bins of a number, and how far apart groups are."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor


class Groups(NamedTuple):
    """Sums over the rows of each group, on the CPU in float64; sorted by id, any integer."""

    ids: Tensor
    """``(G,)`` int64."""
    count: Tensor  # type: ignore[assignment]  # not the method of a tuple
    """``(G,)`` rows."""
    sums: Tensor
    """``(G, K)``."""

    @property
    def means(self) -> Tensor:
        """``(G, K)``."""
        return self.sums / self.count[:, None]


def by_group(ids: Tensor, values: Tensor, count: Tensor | None = None) -> Groups:
    """Sums of rows ``(N, K)`` by their ids ``(N,)``; or of sums, with the ``count`` behind each."""
    ids, values = ids.detach().cpu().long(), values.detach().cpu().double()
    unique, place = torch.unique(ids, return_inverse=True)
    ones = torch.ones(len(ids), dtype=torch.float64) if count is None else count.cpu().double()
    sums = torch.zeros(len(unique), values.shape[1], dtype=torch.float64)
    number = torch.zeros(len(unique), dtype=torch.float64)
    return Groups(unique, number.index_add(0, place, ones), sums.index_add(0, place, values))


def quantile_bins(values: Tensor, bins: int) -> tuple[Tensor, Tensor]:
    """Edges ``(bins + 1,)`` at equal shares of the values, and the bin of each value ``(N,)``.

    Bins hold their lower edge, the last one its upper edge too. Of values that repeat some bins may
    stay empty.

    Args:
        values: ``(N,)``, finite, at least one.
        bins: at least 1.
    """
    values = values.double()
    shares = torch.linspace(0, 1, bins + 1, dtype=torch.float64, device=values.device)
    # torch.quantile refuses more than 16 million numbers.
    ordered = values.sort().values
    at = shares * (len(ordered) - 1)
    low = at.floor().long()
    high = (low + 1).clamp(max=len(ordered) - 1)
    edges = torch.lerp(ordered[low], ordered[high], at - low)
    place = torch.searchsorted(edges, values, right=True) - 1
    return edges, place.clamp(0, bins - 1)


class Gap(NamedTuple):
    """The worst group."""

    place: int
    value: float
    to_mean: float
    """Its value less the mean over all rows."""
    to_best: float
    """Less that of the best group."""


def worst_group(value: Tensor, count: Tensor, min_count: int = 1) -> Gap | None:
    """The group of largest mean among those of at least so many rows; None if there is none.

    Args:
        value: ``(G,)`` mean of each group, of which more is worse.
        count: ``(G,)`` rows of each.
        min_count: the mean of few rows is large by chance.
    """
    enough = count >= min_count
    if not bool(enough.any()):
        return None
    place = int(torch.where(enough, value, -torch.inf).argmax())
    worst, best = value[place], torch.where(enough, value, torch.inf).min()
    mean = (value * count).sum() / count.sum()
    return Gap(place, float(worst), float(worst - mean), float(worst - best))


def js_distance(p: Tensor, q: Tensor, base: float = math.e) -> Tensor:
    """Jensen-Shannon distance of distributions ``(..., C)``: the root of the divergence.

    In [0, 1] with base 2, at most 0.8326 in nats.
    """
    m = (p + q) / 2
    divergence = (torch.special.xlogy(p, p / m) + torch.special.xlogy(q, q / m)).nan_to_num(0.0)
    distance: Tensor = (divergence.sum(-1) / (2 * math.log(base))).clamp(min=0).sqrt()
    return distance
