# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How far one histogram has moved from another: the population stability index."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class PSI(NamedTuple):
    """What `psi` measures; `woe` and its standard error are `(K,)`, the others are 0-dim."""

    psi: Tensor
    """`sum_j (p_j - q_j) ln(p_j / q_j)`, nats: 0 for equal shares; above 0.25 is called a shift."""
    standard_error: Tensor
    """Of `psi`, by the delta method of two multinomials. Too small where `psi` itself is small."""
    bias: Tensor
    """Mean of `psi` when nothing has moved: `(K - 1) (1 / n + 1 / m)` for K cells in use."""
    woe: Tensor
    """Weight of evidence `ln(p_j / q_j)` of each cell."""
    woe_standard_error: Tensor
    """Of each `woe`, from the counts of its cell alone: `sqrt(1 / n_j + 1 / m_j)`."""


def psi(reference: Tensor, counts: Tensor) -> PSI:
    """Population stability index between two histograms over the same cells (arXiv 2509.09855).

    A cell with no rows on one side counts as half a row there, so nothing is infinite; one with
    none on either side is left out. NaN if a side has no rows at all.

    Args:
        reference: `(K,)` counts that `p` is the shares of.
        counts: `(K,)` counts that `q` is the shares of.

    Raises:
        ValueError: shapes differ; on a CPU, counts that are negative or not finite, and shares.

    Examples:
        >>> found = psi(torch.tensor([500, 500]), torch.tensor([400, 600]))
        >>> round(found.psi.item(), 4), round(found.bias.item(), 4)  # moved, and what chance moves
        (0.0405, 0.002)
    """
    if reference.shape != counts.shape or reference.ndim != 1:
        raise ValueError(
            f"psi needs two histograms over the same cells (K,), found {tuple(reference.shape)} "
            f"and {tuple(counts.shape)}; count both with the same edges"
        )
    for name, side in (("reference", reference), ("counts", counts)):
        if side.device.type != "cpu" or not side.numel():
            continue
        wrong = ~side.isfinite() | (side < 0)
        if bool(wrong.any()) or (side.is_floating_point() and 0 < float(side.sum()) <= 1 + 1e-6):
            raise ValueError(
                f"psi needs counts of rows, at least 0, found {name} from {float(side.min()):.6g} "
                f"to {float(side.max()):.6g} that sum to {float(side.sum()):.6g}; write counts, "
                "not shares, whose standard error nobody knows"
            )
    dtype = torch.float32 if counts.device.type == "mps" else torch.float64
    n, m = reference.to(dtype), counts.to(dtype)
    used = (n > 0) | (m > 0)
    known = (n.sum() > 0) & (m.sum() > 0)
    n, m = (torch.where(used & (side == 0), 0.5, side) for side in (n, m))
    p, q = n / n.sum(), m / m.sum()
    woe = torch.where(used, (p / q).log(), 0)
    moved = p - q
    slope_p = woe + torch.where(used, moved / p, 0)
    slope_q = -woe - torch.where(used, moved / q, 0)
    variance = _variance(p, slope_p) / n.sum() + _variance(q, slope_q) / m.sum()
    value = torch.where(known, (moved * woe).sum(), torch.nan)
    bias = (used.sum() - 1).clamp(min=0) * (1 / n.sum() + 1 / m.sum())
    woe_error = torch.where(used, (1 / n + 1 / m).sqrt(), torch.nan)
    return PSI(value, variance.clamp(min=0).sqrt(), bias, woe, woe_error)


def pool(reference: Tensor, cells: int = 10) -> Tensor:
    """Cell `(F,)` int64 of each bin, such that the reference has about equally many rows in each.

    `psi` over many sparse bins measures noise; over tenths of the reference it measures shift. Use
    as `torch.zeros(cells).index_add(0, pool(reference, cells), histogram)`.
    """
    total = reference.sum().clamp(min=1)
    middle = 2 * reference.cumsum(0) - reference  # twice the rows below the middle of the bin
    return (middle * cells // (2 * total)).clamp(max=cells - 1)


def _variance(share: Tensor, slope: Tensor) -> Tensor:
    return (share * slope.square()).sum() - (share * slope).sum().square()
