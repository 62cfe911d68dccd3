# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Poincare ball: the map into it, and distances between its points."""

from __future__ import annotations

import torch
from torch import Tensor

#: In the denominator of Moebius addition, as the authors of Hyp-OC and HypCD have it.
MOEBIUS_EPS = 1e-5
#: Points stay within this share of the ball's radius, as theirs; beyond, float32 has no distances.
RIM = 1 - 1e-3
#: What artanh is asked of at most.
ARTANH_MAX = 1 - 1e-5


def length(x: Tensor) -> Tensor:
    """Lengths ``(...)``, 1 for a zero vector: then what it multiplies is 0 anyway."""
    squared = x.square().sum(-1)
    return torch.where(squared > 0, squared, 1.0).sqrt()


def into_ball(v: Tensor, c: float) -> Tensor:
    """The exponential map at the origin of vectors ``(..., D)``, kept off the rim."""
    reach = c**0.5 * length(v)
    scaled: Tensor = (reach.tanh().clamp(max=RIM) / reach)[..., None] * v
    return scaled


def clip_length(v: Tensor, radius: float | None) -> Tensor:
    """Vectors no longer than a radius, which keeps them off the rim; None leaves them."""
    if radius is None:
        return v
    scaled: Tensor = v * (radius / length(v)).clamp(max=1)[..., None]
    return scaled


def poincare_distance(x: Tensor, y: Tensor, c: float = 1.0, arctan: bool = False) -> Tensor:
    """``2 / sqrt(c) artanh(sqrt(c) |-x (+) y|)`` of points of the ball with curvature c, ``(...)``.

    x and y ``(..., D)`` are broadcast; duplicates have distance 0 with gradient 0. ``arctan``
    instead of artanh is what the code of Hyp-OC has, and no distance of the ball.
    """
    xy = (x * y).sum(-1)
    return from_products(xy, x.square().sum(-1), y.square().sum(-1), c, arctan)


def poincare_distances(x: Tensor, y: Tensor, c: float = 1.0) -> Tensor:
    """Distances ``(N, M)`` of every x ``(N, D)`` to every y ``(M, D)``, without a third axis."""
    return from_products(x @ y.t(), x.square().sum(-1)[:, None], y.square().sum(-1), c)


def from_products(xy: Tensor, xx: Tensor, yy: Tensor, c: float, arctan: bool = False) -> Tensor:
    """The distance from the inner products of two points."""
    # |-x (+) y|^2 (1 - 2c xy + c^2 xx yy)^2 = |x - y|^2 (1 - 2c xy + c^2 xx yy): the plain sum of
    # squares of Moebius addition would lose this in cancellation.
    below = 1 - 2 * c * xy + c**2 * xx * yy
    squared = (xx - 2 * xy + yy) * below / (below + MOEBIUS_EPS).square()
    apart = squared > 0
    norm = torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
    scaled = c**0.5 * norm
    turned = scaled.arctan() if arctan else scaled.clamp(max=ARTANH_MAX).atanh()
    value: Tensor = 2 / c**0.5 * turned
    return value
