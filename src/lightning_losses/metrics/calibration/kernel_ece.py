# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration error of whole rows of probabilities, by kernels on the simplex instead of bins."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.validation import class_rows

#: Pairs of rows, times classes, at a time.
LARGE = 1 << 22
#: In place of log 0, so that 0 times it is 0: a kernel of 0 that makes no NaN.
LOG_ZERO = -1e100

Kind = Literal["canonical", "marginal", "top_label"]
#: Widths that `loo_bandwidth` tries.
WIDTHS = (*(10 ** (-5 + 4 * k / 14) for k in range(15)), 0.2, 0.4, 0.6, 0.8, 1.0)


def ece_kde(
    probabilities: Tensor,
    target: Tensor,
    bandwidth: float | Tensor | None = None,
    power: float = 1.0,
    kind: Kind = "canonical",
    valid: Tensor | None = None,
) -> Tensor:
    """`mean_i sum_k |E_k(p_i) - p_ik|^power`, E estimated from the other rows; 0-dim float64.

    Popordanoska, Sayer and Blaschko, "A Consistent and Differentiable Lp Canonical Calibration
    Error Estimator", arXiv 2210.07810: `E(p_i)` is the mean of the one-hot targets of the other
    rows, weighed by a Dirichlet density with parameters `p_j / bandwidth + 1` at `p_i`. Not rooted.
    Two classes therefore have twice the error of the one event. A row that no other one is near
    (all densities are 0) says nothing and is left out; NaN where none is left.

    Takes time for the square of N, times C; memory for 4 million numbers at a time. A few thousand
    rows are enough. Of several processes, gather the rows first.

    Args:
        probabilities: `(N, C)`.
        target: `(N,)` int64.
        bandwidth: of the kernel; None for `loo_bandwidth` of the rows.
        power: 1 or 2, of the distance.
        kind: `canonical` of the row as a whole; `marginal` the sum over classes of the error of
            each alone, Beta kernels; `top_label` of the largest one against whether it was right.
        valid: `(N,)` bool, False where a row does not count.

    Raises:
        ValueError: another kind, a power or bandwidth that is not positive, rows or classes that
            are none.

    Examples:
        >>> p = torch.tensor([[0.8, 0.2]]).repeat(200, 1)
        >>> eight_of_ten = (torch.arange(200) % 10 >= 8).long()
        >>> round(ece_kde(p, eight_of_ten).item(), 3)
        0.003
        >>> round(ece_kde(p, torch.zeros_like(eight_of_ten)).item(), 3)  # 0.2 for either class
        0.4
    """
    if kind not in get_args(Kind) or not power > 0:
        raise ValueError(
            f"ece_kde needs a kind of {get_args(Kind)} and a positive power, found {kind!r} and "
            f"{power}; write kind='canonical', power=1"
        )
    p, y = _rows("ece_kde", probabilities, target, valid)
    if kind == "top_label":
        confidence, prediction = p.max(1)
        p, hits = confidence[:, None], (prediction == y).double()[:, None]
    else:
        hits = torch.nn.functional.one_hot(y, p.shape[1]).double()
    if bandwidth is None:
        bandwidth = _best(p)
    return _error(p, hits, _checked(bandwidth), power, whole=kind == "canonical")


def loo_bandwidth(probabilities: Tensor, valid: Tensor | None = None) -> Tensor:
    """The width, of 20 from 1e-5 to 1, under which rows are likeliest given the others; 0-dim.

    Rows `(N, C)`; of one column, the probability of an event. The likelihood is that of the mean of
    the other rows' densities. (The authors' code divides those by the width once more, which
    prefers small ones, and answers -1 where all likelihoods are below 1.) NaN for fewer than two
    rows.

    Examples:
        >>> apart = torch.linspace(0.3, 0.7, 50)[:, None]
        >>> close = torch.linspace(0.45, 0.55, 50)[:, None]
        >>> [round(loo_bandwidth(p).item(), 4) for p in (apart, close)]
        [0.0072, 0.0005]
    """
    if probabilities.ndim == 2 and probabilities.shape[1] == 1:
        probabilities = torch.cat([1 - probabilities, probabilities], 1)
    nobody = torch.zeros(len(probabilities), dtype=torch.int64, device=probabilities.device)
    return _best(_rows("loo_bandwidth", probabilities, nobody, valid)[0])


def _rows(
    who: str, probabilities: Tensor, target: Tensor, valid: Tensor | None
) -> tuple[Tensor, Tensor]:
    rows = class_rows(who, probabilities, target, valid)
    device = "cpu" if probabilities.device.type == "mps" else probabilities.device
    p, y, keep = (part.to(device) for part in (rows.probabilities, rows.target, rows.keep))
    return p.double()[keep], y[keep]


def _checked(bandwidth: float | Tensor) -> float:
    width = float(bandwidth)
    if not (width > 0 or width != width):  # NaN: of no rows
        raise ValueError(f"bandwidth must be positive, found {width}; write None to have it chosen")
    return width


def _log_density(at: Tensor, centres: Tensor, width: float) -> Tensor:
    """Log Dirichlet density `(A, N)` of each centre `(N, C)` at each `(A, C)`."""
    alpha = centres / width
    constant = torch.lgamma(alpha + 1).sum(1) - torch.lgamma(alpha.sum(1) + alpha.shape[1])
    return at.log().clamp(min=LOG_ZERO) @ alpha.T - constant


def _blocks(p: Tensor, width: float, whole: bool) -> Iterator[tuple[slice, Tensor]]:
    """Log densities at a few rows at a time, of all rows but the row itself: `(A, N, K)`.

    K is 1 for whole rows, else each column is an event of its own.
    """
    columns = 1 if whole else p.shape[1]
    step = max(1, LARGE // max(1, len(p) * max(columns, 1)))
    for start in range(0, len(p), step):
        rows = slice(start, min(start + step, len(p)))
        parts = []
        for k in range(columns):
            two = p if whole else torch.stack([1 - p[:, k], p[:, k]], 1)
            parts.append(_log_density(two[rows], two, width))
        density = torch.stack(parts, -1)
        own = torch.arange(start, rows.stop, device=p.device)
        density[own - start, own] = -torch.inf
        yield rows, density


def _error(p: Tensor, hits: Tensor, width: float, power: float, whole: bool) -> Tensor:
    total, count = p.new_zeros(hits.shape[1]), p.new_zeros(hits.shape[1])
    for rows, density in _blocks(p, width, whole):
        highest = density.amax(1, keepdim=True)
        near = (highest > LOG_ZERO / 2).squeeze(1)  # (A, K)
        weight = (density - torch.where(near[:, None], highest, 0)).exp()
        seen = weight[..., 0] @ hits if whole else torch.einsum("ank,nk->ak", weight, hits)
        mean = seen / weight.sum(1).clamp(min=torch.finfo(p.dtype).tiny)
        distance = (mean - p[rows]).abs() ** power
        total = total + torch.where(near, distance, 0).sum(0)
        count = count + near.sum(0)
    return (total / count).sum()


def _best(p: Tensor) -> Tensor:
    if len(p) < 2:
        return p.new_tensor(torch.nan)
    whole = p.shape[1] > 1
    found = []
    for width in WIDTHS:
        density = [
            torch.logsumexp(part.squeeze(-1), 1).sum() for _, part in _blocks(p, width, whole)
        ]
        found.append(torch.stack(density).sum())
    return p.new_tensor(WIDTHS)[torch.stack(found).argmax()]
