# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The distribution of row entropies over all ranks, from one vector of fixed length a rank."""

from __future__ import annotations

import torch
from torch import Tensor

NAMES = ("mean", "effective_classes", "p10", "p50", "p90")

# A rank of several tells the others this many of its sorted rows: quantiles across ranks are exact
# up to 1024 rows a rank, and beyond that off by at most 1/2048 of the rows.
SKETCH = 1024


def sketch(entropy: Tensor, valid: Tensor | None, size: int | None) -> Tensor:
    """What a rank tells the others: a vector of one length, whatever rows it has.

    Args:
        entropy: ``(N,)`` nats.
        valid: ``(N,)`` bool, or None for all.
        size: how many sorted rows to tell; None for all of them.

    Returns:
        ``(2 size + 3,)``: values, how many rows each stands for, the sums of H and of e^H over
        the finite rows that count, and the number of rows that count but are not finite.
    """
    finite = entropy.isfinite()
    use = finite if valid is None else finite & valid
    bad = (~finite if valid is None else ~finite & valid).sum()
    masked = torch.where(use, entropy, 0)
    # One more than there are, so that no rows at all need no case of their own.
    ordered = torch.cat([entropy.where(use, torch.inf), entropy.new_full((1,), torch.inf)])
    ordered = ordered.sort().values
    size = len(ordered) if size is None else size
    share = torch.arange(size + 1, device=entropy.device) * use.sum() // size
    middle = (share[:-1] + share[1:]) // 2  # of the sorted rows that each value stands for
    weights = share.diff().to(entropy.dtype)
    classes = torch.where(use, masked.exp(), 0)
    sums = torch.stack([masked.sum(), classes.sum(), bad.to(entropy.dtype)])
    return torch.cat([ordered[middle], weights, sums])


def merge(sketches: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Values in the order of `NAMES`, number of rows, and of rows left out, from all ranks.

    A quantile q is the smallest value with at least a fraction q of the rows at or below it.
    """
    body, sums = sketches[:, :-3], sketches[:, -3:].sum(0)
    ordered, order = body[:, : body.shape[1] // 2].flatten().sort()
    weights = body[:, body.shape[1] // 2 :].flatten()[order].long()
    rows = weights.sum()
    tenths = torch.arange(1, 10, 4, device=rows.device)  # 1, 5, 9
    rank = (tenths * rows + 9) // 10  # rounded up
    quantiles = ordered[torch.searchsorted(weights.cumsum(0), rank).clamp(max=len(ordered) - 1)]
    return torch.cat([sums[:2] / rows.clamp(min=1), quantiles]), rows.to(sums), sums[2]
