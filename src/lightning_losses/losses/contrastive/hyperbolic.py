# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses of the Poincare ball."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient, row_offset
from lightning_losses.losses.shared.hyperbolic import (
    clip_length,
    from_products,
    into_ball,
    poincare_distance,
)
from lightning_losses.losses.shared.pairs import masked_logsumexp, over_blocks
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views


class HyperbolicContrastive(nn.Module):
    """NT-Xent with minus the Poincare distance for similarity: ``softmax(-d_c / T)``.

    Liu, He and Han, "Hyperbolic Category Discovery" (HypCD), arXiv 2504.06120, the branch of
    distances; the branch of angles is ``nt_xent`` of the same features. Features are tangent
    vectors at the origin and are mapped into the ball here, in float32 at least.

    Args:
        curvature: c, positive.
        temperature: T, positive.
        clip_radius: vectors are shortened to it first; far out in the ball gradients vanish.

    Shapes: features ``(B, 2, D)``, or features and other_features ``(B, D)``; per-row values
    ``(B,)``, the mean of both views. Columns are those of all ranks.
    """

    scope = "pairs"
    contract = TWO_VIEWS

    def __init__(
        self, curvature: float = 0.05, temperature: float = 1.0, clip_radius: float | None = None
    ) -> None:
        super().__init__()
        _check(curvature, clip_radius)
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.curvature, self.temperature, self.clip_radius = curvature, temperature, clip_radius

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        views = torch.stack(two_views(features, other_features), 1)
        rows = len(views)
        if valid is None:
            valid = torch.ones(rows, dtype=torch.bool, device=views.device)
        views = torch.where(valid[:, None, None], views, 0)
        c = self.curvature
        x = into_ball(clip_length(views.flatten(0, 1), self.clip_radius), c)
        columns = gather_with_gradient(x)
        counts = gather_with_gradient(valid.repeat_interleave(2))
        first = row_offset(x)
        if not len(columns):
            return x.sum(1)
        xx, yy = x.square().sum(1), columns.square().sum(1)
        column = torch.arange(len(columns), device=x.device)

        def cross_entropy(xy: Tensor, start: int, stop: int) -> tuple[Tensor]:
            z = -from_products(xy, xx[start:stop, None], yy, c) / self.temperature
            own = torch.arange(start, stop, device=z.device) + first
            others = counts[None, :] & (own[:, None] != column)
            other_view = own + 1 - 2 * (own % 2)  # views of a sample are neighbours
            return (masked_logsumexp(z, others) - z.gather(1, other_view[:, None])[:, 0],)

        (values,) = over_blocks(cross_entropy, x, columns)
        return values.reshape(-1, 2).mean(1)


class PairwiseConfusion(nn.Module):
    """Half the Poincare distance of a row's two features: what is not to be told apart.

    Narayan and Patel, "Hyp-OC: Hyperbolic One Class Classification for Face Anti-Spoofing", arXiv
    2404.14406. Its code pairs row i with row i + B/2 and divides by B: pass the halves as features
    and other_features. Minimised it confuses the rows, against a loss that tells them apart: in the
    paper cross-entropy of ``head=hyperbolic_mlr`` against rows of
    `lightning_losses.samplers.PseudoNegatives`.

    Args:
        curvature: c, positive.
        clip_radius: vectors are shortened to it first.
        arctan: as the authors' code, where the distance has artanh; to reproduce their numbers.

    Shapes: features and other_features ``(B, D)``, or features ``(B, 2, D)``; per-row values
    ``(B,)``.
    """

    scope = "rows"
    contract = Contract(
        target=("none",), head="none", same_columns=(("features", "other_features"),)
    )

    def __init__(
        self, curvature: float = 0.1, clip_radius: float | None = None, arctan: bool = False
    ) -> None:
        super().__init__()
        _check(curvature, clip_radius)
        self.curvature, self.clip_radius, self.arctan = curvature, clip_radius, arctan

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        c = self.curvature
        views = two_views(features, other_features)
        if valid is not None:  # by where, before the product: 0 times NaN is NaN
            views = (
                torch.where(valid[:, None], views[0], 0),
                torch.where(valid[:, None], views[1], 0),
            )
        x, y = (into_ball(clip_length(view, self.clip_radius), c) for view in views)
        return poincare_distance(x, y, c, self.arctan) / 2


def _check(curvature: float, clip_radius: float | None) -> None:
    if not curvature > 0 or not (clip_radius is None or clip_radius > 0):
        raise ValueError(
            f"curvature and clip_radius must be positive, got {curvature} and {clip_radius}."
        )
