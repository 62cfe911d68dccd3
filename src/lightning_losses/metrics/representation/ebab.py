# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a layer keeps of its input: entropy of activations, binned at equal counts (EBAB).

Chelombiev, Houghton and O'Donnell 2019, arXiv 1902.09037.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class LayerInformation(NamedTuple):
    """Where a layer lies in the information plane."""

    itx: Tensor
    """I(T; X) in bits, 0-dim float64: the entropy of the code, for the input fixes it."""
    ity: Tensor
    """I(T; Y) in bits, 0-dim float64."""
    codes: int
    """Number of different codes; if as many as rows, the binning tells nothing."""


def adaptive_edges(activations: Tensor, bins: int = 30, low: float | None = None) -> Tensor:
    """Bin edges ``(bins + 2,)`` at equal counts of the different values of a layer, ascending.

    ``low``, then the value at every (1 / bins)-th of the sorted different values other than
    ``low``, then the largest. So the values of a rectifier's 0 and the largest have bins to
    themselves. With fewer values than bins some edges are equal.

    Args:
        activations: of any shape, all units of a layer together.
        bins: how many, at least 1.
        low: the lowest edge; None: the smallest activation, which is 0 for a rectifier.

    Raises:
        ValueError: bins below 1.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}.")
    values = torch.unique(activations.detach())  # sorted
    if low is None:
        low = float(values[0]) if len(values) else 0.0
    lowest: Tensor = values.new_tensor([low])
    values = values[values != low]
    if not len(values):
        return lowest
    at = [int(k * (len(values) / bins)) for k in range(bins)]
    return torch.cat([lowest, values[at], values[-1:]])


def codes(activations: Tensor, edges: Tensor) -> Tensor:
    """The bin of every activation, int64 of the same shape; edges belong to the bin above."""
    above: Tensor = torch.bucketize(activations.detach().contiguous(), edges, right=True)
    return above - 1


def joint_entropy(code: Tensor) -> Tensor:
    """Entropy in bits of the rows of ``(N, D)`` codes, 0-dim float64; 0 without rows."""
    return _entropy(_labels(code))


def layer_information(
    activations: Tensor, target: Tensor, bins: int = 30, low: float | None = None
) -> LayerInformation:
    """I(T; X) and I(T; Y) of ``(N, D)`` activations T, rows of different inputs X.

    Plug-in estimates in bits: H(code) and H(code) - H(code | Y). A network without noise has no
    other finite ones, and these depend on the binning. If every row has its own code, as in wide
    layers, they are log2 N and H(Y) whatever the layer does.

    Args:
        activations: ``(N, D)``, finite.
        target: ``(N,)`` class indices.
        bins: see `adaptive_edges`.
        low: see `adaptive_edges`.

    Raises:
        ValueError: shapes that do not fit, activations that are not finite, bins below 1.

    Examples:
        >>> activations = torch.tensor([[0.0], [0.0], [1.0], [1.0]])
        >>> found = layer_information(activations, torch.tensor([0, 0, 1, 1]))
        >>> found.itx.item(), found.ity.item(), found.codes
        (1.0, 1.0, 2)
    """
    if activations.ndim != 2 or target.shape != activations.shape[:1]:
        raise ValueError(
            "needs activations (N, D) and target (N,), found "
            f"{tuple(activations.shape)} and {tuple(target.shape)}."
        )
    if not bool(activations.isfinite().all()):
        raise ValueError("activations hold NaN or infinity; leave those rows out.")
    row = _labels(codes(activations, adaptive_edges(activations, bins, low)))
    whole = _entropy(row)
    given = whole.new_zeros(())
    for label in torch.unique(target):
        own = row[target == label]
        given += len(own) / len(row) * _entropy(own)
    return LayerInformation(whole, (whole - given).clamp(min=0), len(torch.unique(row)))


def _labels(code: Tensor) -> Tensor:
    """A number for each row, equal where rows are."""
    if not code.numel():
        return code.new_zeros(len(code), dtype=torch.int64)
    labels: Tensor = torch.unique(code, dim=0, return_inverse=True)[1]
    return labels


def _entropy(label: Tensor) -> Tensor:
    counts = torch.unique(label, return_counts=True)[1].double()
    p = counts / counts.sum()
    bits: Tensor = -(p * p.log2()).sum()
    return bits.clamp(min=0)
