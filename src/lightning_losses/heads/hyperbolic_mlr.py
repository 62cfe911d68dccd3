# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Hyperbolic logistic regression: logits as distances to hyperplanes of the Poincare ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

#: In the denominator of Moebius addition, as the authors of Hyp-OC.
MOEBIUS_EPS = 1e-5
#: Points stay within this share of the ball's radius, as theirs; beyond, float32 has no distances.
RIM = 1 - 1e-3


class HyperbolicMLR(nn.Module):
    """Logits ``lambda_p |a| / sqrt(c) asinh(...)``: signed distances to class hyperplanes.

    Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks", arXiv 1805.09112; with ``loss=ce``
    the Hyp-CE of Hyp-OC. Features and hyperplane points are tangent vectors at the origin and
    mapped into the ball here, so a plain optimizer is fine. Computed in float32 at least, never in
    autocast.

    Args:
        in_features: D.
        out_features: C.
        curvature: c, positive; towards 0 the logits become affine.

    Shapes: features ``(..., D)`` to logits ``(..., C)``.
    """

    def __init__(self, in_features: int, out_features: int, curvature: float = 0.1) -> None:
        super().__init__()
        if not curvature > 0:
            raise ValueError(f"curvature must be positive, got {curvature}.")
        self.normal = nn.Parameter(torch.empty(out_features, in_features))
        self.point = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.normal, std=in_features**-0.5)
        nn.init.normal_(self.point, std=0.1 * in_features**-0.5)
        self.curvature = curvature

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., C)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            c = self.curvature
            x = _into_ball(features.to(dtype), c).unsqueeze(-2)
            p, a = _into_ball(self.point.to(dtype), c), self.normal.to(dtype)
            squared_p = p.square().sum(-1)
            a = a * (1 - c * squared_p)[:, None]
            m = _moebius_add(-p, x, c)
            length = _length(a)
            inside = (1 - c * m.square().sum(-1)).clamp(min=1e-6)
            slope = 2 * c**0.5 * (m * a).sum(-1) / (length * inside)
            logits: Tensor = 2 / (1 - c * squared_p) * length / c**0.5 * slope.asinh()
            return logits


def _length(x: Tensor) -> Tensor:
    """Lengths ``(...)``, 1 for a zero vector: then what it multiplies is 0 anyway."""
    squared = x.square().sum(-1)
    return torch.where(squared > 0, squared, 1.0).sqrt()


def _into_ball(v: Tensor, c: float) -> Tensor:
    """The exponential map at the origin, kept off the rim."""
    reach = c**0.5 * _length(v)
    scaled: Tensor = (reach.tanh().clamp(max=RIM) / reach)[..., None] * v
    return scaled


def _moebius_add(x: Tensor, y: Tensor, c: float) -> Tensor:
    xy = (x * y).sum(-1, keepdim=True)
    xx, yy = x.square().sum(-1, keepdim=True), y.square().sum(-1, keepdim=True)
    above = (1 + 2 * c * xy + c * yy) * x + (1 - c * xx) * y
    below: Tensor = 1 + 2 * c * xy + c**2 * xx * yy + MOEBIUS_EPS
    total: Tensor = above / below
    return total
