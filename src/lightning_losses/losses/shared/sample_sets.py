# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two sets of maps for each image: samples of a model, and what several annotators drew."""

from __future__ import annotations

import torch
from torch import Tensor


def read_sets(estimate: Tensor, reference: Tensor, valid: Tensor | None) -> tuple[Tensor, Tensor]:
    """Points ``(B, S, K)`` and ``(B, A, K)``; 0 in images that do not count.

    Args:
        estimate: ``(B, S, ...)``, S samples of an image; ``(B, S)`` for samples of one number.
        reference: ``(B, A, ...)``.
        valid: images ``(B,)`` that count.
    """
    sizes = (estimate.shape[:1] + estimate.shape[2:], reference.shape[:1] + reference.shape[2:])
    if min(estimate.ndim, reference.ndim) < 2 or sizes[0] != sizes[1]:
        raise ValueError(
            "Sets of maps are estimate (B, S, ...) and reference (B, A, ...) with the same B and "
            f"..., got {tuple(estimate.shape)} and {tuple(reference.shape)}."
        )
    if not (estimate.shape[1] and reference.shape[1]):
        raise ValueError(
            f"A set needs at least one member, got estimate {tuple(estimate.shape)} and reference "
            f"{tuple(reference.shape)}."
        )
    x, y = (t.reshape(*t.shape[:2], sizes[0][1:].numel()) for t in (estimate, reference))
    y = y.to(x.dtype)
    if valid is not None:
        x, y = (torch.where(valid[:, None, None], t, 0.0) for t in (x, y))
    return x, y


def distances(x: Tensor, y: Tensor) -> Tensor:
    """Euclidean distances ``(B, S, A)`` of points, with gradient 0 where two coincide."""
    # Not by a product, whose rounding leaves a distance between equal points.
    return torch.cdist(x, y, compute_mode="donot_use_mm_for_euclid_dist")
