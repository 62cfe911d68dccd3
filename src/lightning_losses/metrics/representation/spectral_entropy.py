# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""In how many directions do features spread? Diffusion spectral entropy, and what labels explain.

Liao, Liu and others 2023, arXiv 2312.04823.
"""

from __future__ import annotations

import torch
from torch import Tensor


def median_distance(features: Tensor) -> Tensor:
    """Median Euclidean distance between two different rows of ``(N, D)``, 0-dim float64.

    The lower of two middle ones. 0 for fewer than two rows.
    """
    x = _double(features)
    if len(x) < 2:
        return x.new_zeros(())
    above = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
    return _distance(x)[above].median()


def diffusion_kernel(features: Tensor, bandwidth: float | Tensor) -> Tensor:
    """``(N, N)`` symmetric kernel D^-1/2 G D^-1/2, G_ij = exp(-d_ij^2 / (2 bandwidth^2)), float64.

    D holds the row sums of G. Its eigenvalues are those of the diffusion matrix D^-1 G: in [0, 1]
    up to rounding, the largest 1. (The factor of a normal density in front of G cancels.)
    """
    x = _double(features)
    gaussian = torch.exp(-(_distance(x) / bandwidth).square() / 2)
    root = gaussian.sum(1).rsqrt()
    return gaussian * root[:, None] * root


def diffusion_spectral_entropy(
    features: Tensor, bandwidth: float | Tensor | None = None, t: float = 1.0
) -> Tensor:
    """DSE in bits, 0-dim float64: entropy of the eigenvalues of the diffusion matrix, normalised.

    Between 0 (all rows equal) and log2 N (rows far apart against the bandwidth); m clusters of
    equal size that are points far apart have log2 m. Costs O(N^3): about a second for 1000 rows
    on a CPU core, so pass at most that many.

    Args:
        features: ``(N, D)``; 0 rows have entropy 0.
        bandwidth: of the Gaussian kernel, in units of the features. None: the median distance of
            two rows. Then the measure does not depend on the scale of the features, and says how
            they are spread and not how far; the paper has 10, whatever the scale, which says
            little about features of norm 1.
        t: power of the eigenvalues; larger ones leave out finer structure.

    Raises:
        ValueError: features that are not ``(N, D)`` or not finite; a bandwidth or t that is not
            positive.

    Examples:
        >>> clusters = torch.tensor([[0.0], [0.0], [100.0], [100.0]])
        >>> round(diffusion_spectral_entropy(clusters, bandwidth=1.0).item(), 4)  # log2 2
        1.0
    """
    x = _double(features)
    if not t > 0 or (bandwidth is not None and not bandwidth > 0):
        raise ValueError(f"bandwidth and t must be positive, got {bandwidth} and {t}.")
    if bandwidth is None:
        bandwidth = median_distance(x)
    return _entropy(x, bandwidth, t)


def classic_entropy(features: Tensor, bins: int = 2) -> Tensor:
    """Shannon entropy in bits of the cells that rows fall in, 0-dim float64: what DSE replaces.

    Each dimension is cut into equal bins from its least to its largest value, and rows that share
    all bins share a cell. Between 0 and log2 N, which it reaches in a few dimensions whatever the
    features are: no two rows share a cell then. The paper's comparison, of two bins.

    Args:
        features: ``(N, D)``; 0 rows have entropy 0.
        bins: of each dimension.

    Raises:
        ValueError: features that are not ``(N, D)`` or not finite; fewer than one bin.

    Examples:
        >>> classic_entropy(torch.tensor([[0.0], [0.1], [0.9], [1.0]]))  # two cells, a bit
        tensor(1., dtype=torch.float64)
    """
    x = _double(features)
    if bins < 1:
        raise ValueError(f"bins must be at least 1, got {bins}; write 2.")
    if not x.numel():
        return x.new_zeros(())
    low, high = x.amin(0), x.amax(0)
    share = (x - low) / torch.where(high > low, high - low, 1)
    cell = (share * bins).long().clamp(max=bins - 1)
    p = torch.unique(cell, dim=0, return_counts=True)[1] / x.new_tensor(len(x))
    bits: Tensor = -torch.xlogy(p, p).sum() / torch.log(x.new_tensor(2.0))
    return bits.clamp(min=0)


def diffusion_spectral_mutual_information(
    features: Tensor,
    target: Tensor,
    bandwidth: float | Tensor | None = None,
    t: float = 1.0,
    repeats: int = 5,
) -> Tensor:
    """DSMI in bits, 0-dim float64: the entropy that knowing the class takes away.

    The mean over rows of DSE(as many rows of any class) - DSE(rows of the class). Subsets are of
    equal size because DSE grows with the number of rows; the bandwidth is that of all rows, for
    all. Subsets are drawn with a generator of their own, so the value is repeatable and no random
    state is touched. It can be slightly negative. A class with one row says nothing and adds 0.
    What features say of the *input* is the same with clusters of the input in place of classes.

    Args:
        features: ``(N, D)``.
        target: ``(N,)`` class indices, or clusters, such as scikit-learn's ``KMeans(10)`` finds
            them; rows with a negative one do not count.
        bandwidth: see `diffusion_spectral_entropy`.
        t: see `diffusion_spectral_entropy`.
        repeats: random subsets that are averaged for each class.

    Raises:
        ValueError: as `diffusion_spectral_entropy`; a target that is not ``(N,)``; repeats below 1.

    Examples:
        >>> target = torch.arange(100) % 2
        >>> features = 100.0 * target[:, None]  # the class says all
        >>> round(diffusion_spectral_mutual_information(features, target, bandwidth=1.0).item(), 2)
        1.0
    """
    x = _double(features)
    if target.shape != x.shape[:1] or target.is_floating_point() or repeats < 1:
        raise ValueError(
            f"needs target ({len(x)},) of class indices and repeats of at least 1, found "
            f"{target.dtype} {tuple(target.shape)} and {repeats}."
        )
    known = (target >= 0).to(x.device)
    x, target = x[known], target.to(x.device)[known]
    if not t > 0 or (bandwidth is not None and not bandwidth > 0):
        raise ValueError(f"bandwidth and t must be positive, got {bandwidth} and {t}.")
    if bandwidth is None:
        bandwidth = median_distance(x)
    generator = torch.Generator().manual_seed(0)
    total = x.new_zeros(())
    for label in torch.unique(target):
        own = x[target == label]
        for _ in range(repeats):
            chosen = torch.randperm(len(x), generator=generator)[: len(own)].to(x.device)
            total += len(own) / repeats * _entropy(x[chosen], bandwidth, t)
        total -= len(own) * _entropy(own, bandwidth, t)
    return total / max(len(x), 1)


def _entropy(x: Tensor, bandwidth: float | Tensor, t: float) -> Tensor:
    if len(x) < 2 or not bandwidth > 0:  # the median of mostly equal rows is 0
        return x.new_zeros(())
    eigenvalues = torch.linalg.eigvalsh(diffusion_kernel(x, bandwidth))
    # The kernel has no negative ones; what rounding makes of zeros is noise.
    size = torch.where(eigenvalues > len(x) * 1e-15, eigenvalues, 0) ** t
    p = size / size.sum()
    bits: Tensor = -torch.xlogy(p, p).sum() / torch.log(x.new_tensor(2.0))
    return bits.clamp(min=0)


def _distance(x: Tensor) -> Tensor:
    """``(N, N)``; what rounding leaves of a distance is 0, so equal rows are at exactly 0."""
    x = x - x[:1]  # a common offset would cost digits
    square = x.square().sum(1)
    between = square[:, None] + square - 2 * x @ x.T
    return torch.where(between > 1e-13 * square.max(), between, 0).sqrt()


def _double(features: Tensor) -> Tensor:
    """On the CPU where the device has no float64."""
    if features.ndim != 2 or not bool(features.isfinite().all()):
        raise ValueError(f"features must be finite and (N, D), found {tuple(features.shape)}.")
    x = features.detach()
    return (x.cpu() if x.device.type == "mps" else x).double()
