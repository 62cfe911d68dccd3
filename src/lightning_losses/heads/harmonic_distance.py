# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The harmonic head under other distances than the Euclidean."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_losses.heads import distances

Distance = Literal[
    "cosine",
    "euclidean",
    "manhattan",
    "minkowski",
    "chebyshev",
    "canberra",
    "bray_curtis",
    "hamming",
    "mahalanobis",
]


class HarmonicDistanceHead(nn.Module):
    """Logits ``-n log D(x, w_k)``, so that p_k is proportional to D^(-n); for ``loss=ce``.

    "Rethinking the Harmonic Loss via Non-Euclidean Distance Layers", arXiv 2603.10225. The
    exponent is on the plain distance; `HarmonicHead` has it on the squared Euclidean one.

    Args:
        in_features: D.
        out_features: C.
        distance: ``cosine`` (the paper's best trade-off), ``euclidean``, ``manhattan``,
            ``minkowski``, ``chebyshev``, ``canberra``, ``bray_curtis``, ``hamming`` (soft) or
            ``mahalanobis`` (with one learned positive precision a dimension).
        exponent: n; D for language models.
        eps: added to the distance, and to what divides in it; 1e-3 in the paper for bray_curtis.
        p: of minkowski.

    Shapes: features ``(..., D)`` to logits ``(..., C)``, float32 at least. The differences
    ``(..., C, D)`` are made, a block of classes at a time.

    Raises:
        ValueError: an unknown distance, an eps that is not positive, a p below 1.

    Examples:
        >>> head = HarmonicDistanceHead(2, 2, distance="euclidean", exponent=2.0)
        >>> head.weight.data = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
        >>> head(torch.tensor([[1.0, 0.0]])).softmax(1).detach()  # distances 1 and 2
        tensor([[0.8000, 0.2000]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        distance: Distance = "cosine",
        exponent: float = 1.0,
        eps: float = 1e-4,
        p: float = 1.5,
    ) -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(
                f"Unknown distance {distance!r}; write one of {', '.join(get_args(Distance))}."
            )
        if not (eps > 0 and p >= 1):
            raise ValueError(f"eps must be positive and p at least 1, got {eps} and {p}.")
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)
        # Of a logarithm, so that it stays positive whatever the optimizer does.
        self.log_precision = (
            nn.Parameter(torch.zeros(in_features)) if distance == "mahalanobis" else None
        )
        self.distance, self.exponent, self.eps, self.p = distance, exponent, eps, p

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., C)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            x, w = features.to(dtype), self.weight.to(dtype)
            return -self.exponent * self._distance(x, w).log()

    def _distance(self, x: Tensor, w: Tensor) -> Tensor:
        if self.distance == "minkowski":
            return distances.minkowski(x, w, self.eps, self.p)
        if self.log_precision is not None:
            root = (self.log_precision.to(x.dtype) / 2).exp()
            return distances.euclidean(x * root, w * root, self.eps)
        found: Tensor = getattr(distances, self.distance)(x, w, self.eps)
        return found
