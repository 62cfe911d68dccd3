# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Hyperbolic logistic regression: logits as distances to hyperplanes of the Poincare ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.losses.shared.hyperbolic import clip_length, into_ball, length

#: Beyond this exponent exp is left to the logarithm it comes under.
LARGEST = 40.0
#: Squared length of a zero vector, so that its direction times its length is smooth there.
TINY = 1e-30


class HyperbolicMLR(nn.Module):
    """Logits ``lambda_p |a| / sqrt(c) asinh(...)``: signed distances to class hyperplanes.

    Ganea, Becigneul and Hofmann, "Hyperbolic Neural Networks", arXiv 1805.09112; with ``loss=ce``
    the Hyp-CE of Hyp-OC. Features and hyperplane points are tangent vectors at the origin and
    mapped into the ball here, so a plain optimizer is fine. Logits go on growing with the length of
    the features, about linearly: nothing is rounded to the rim of the ball. Computed in float32 at
    least, never in autocast.

    Args:
        in_features: D.
        out_features: C.
        curvature: c, positive; towards 0 the logits become affine.
        clip_radius: features are shortened to it first, as in Hyp-OC; None leaves them.

    Shapes: features ``(..., D)`` to logits ``(..., C)``.

    Raises:
        ValueError: a curvature or radius that is not positive.

    Examples:
        >>> head = HyperbolicMLR(4, 3, curvature=0.1)
        >>> head(torch.ones(2, 4)).shape
        torch.Size([2, 3])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        curvature: float = 0.1,
        clip_radius: float | None = None,
    ) -> None:
        super().__init__()
        if not curvature > 0:
            raise ValueError(f"curvature must be positive, got {curvature}.")
        if clip_radius is not None and not clip_radius > 0:
            raise ValueError(f"clip_radius must be positive, got {clip_radius}.")
        self.normal = nn.Parameter(torch.empty(out_features, in_features))
        self.point = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.normal, std=in_features**-0.5)
        nn.init.normal_(self.point, std=0.1 * in_features**-0.5)
        self.curvature, self.clip_radius = curvature, clip_radius

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., C)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            c = self.curvature
            v = clip_length(features.to(dtype), self.clip_radius)
            p, a = into_ball(self.point.to(dtype), c), self.normal.to(dtype)
            size = length(a)
            inside = 1 - c * p.square().sum(-1)
            # x is sqrt(c) long tanh(r) in the ball. Times cosh(r)^2 = 1 / (1 - c |x|^2), whose
            # rounding would put far points all on the rim, the sums of Moebius addition are of
            # cosh(2r) and sinh(2r); e^{2r} / 2 is taken out of these.
            r = c**0.5 * v.square().sum(-1, keepdim=True).clamp(min=TINY).sqrt()
            cosh, sinh = 1 + (-4 * r).exp(), -(-4 * r).expm1()
            direction = v * (c**0.5 * sinh / r)  # sinh times the unit vector
            along = cosh - c**0.5 * (direction @ p.t())
            slope = -along * (p * a).sum(-1) + inside * (direction @ a.t()) / (2 * c**0.5)
            slope = slope * c**0.5 / (size * inside)
            exponent = (2 * r).clamp(max=LARGEST)
            slope = exponent.exp() * slope
            rest = (2 * r - exponent) * slope / (1 + slope.square()).sqrt()
            logits: Tensor = 2 * size / c**0.5 * (slope.asinh() + rest)
            return logits
