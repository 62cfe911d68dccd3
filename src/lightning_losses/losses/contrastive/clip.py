# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""CLIP and SigLIP: the image finds its text among all texts, and the text its image."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.distributed import gather_with_gradient, row_offset
from lightning_losses.losses.shared.pairs import masked_logsumexp, over_blocks
from lightning_losses.losses.shared.rows_math import unit
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views


class CLIP(nn.Module):
    """``(CE(k X Y^T) + CE(k Y X^T)) / 2`` of unit vectors X and Y; row i belongs to row i.

    Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", arXiv
    2103.00020. Columns are those of all ranks, gathered with gradient, so that the gradient is that
    of one rank with the whole batch.

    Args:
        logit_scale: k, positive, where training starts; 14.3 is the temperature 0.07.
        learnable: train log k; it belongs to the loss, see `LossMixin.parameter_groups`.
        max_scale: k is held below it, as the paper does.

    Shapes: features and other_features ``(B, D)``, or features ``(B, 2, D)``; per-row values
    ``(B,)``. Similarities beyond 2^24 are made block by block, twice.

    Raises:
        ValueError: a scale that is not positive; one side only, or sides of two shapes.
    """

    scope = "pairs"
    contract = TWO_VIEWS

    def __init__(
        self, logit_scale: float = 1 / 0.07, learnable: bool = True, max_scale: float = 100.0
    ) -> None:
        super().__init__()
        self.log_scale, self.max_scale = _log_scale(logit_scale, learnable), max_scale

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y, valid = _unit_sides(features, other_features, valid)
        k = self.log_scale.to(x.dtype).exp().clamp(max=self.max_scale)
        counts, first = gather_with_gradient(valid), row_offset(x)
        if not len(counts):
            return x.sum(1)

        def cross_entropy(s: Tensor, start: int, stop: int) -> tuple[Tensor]:
            own = torch.arange(start, stop, device=s.device) + first
            z = s * k
            return (masked_logsumexp(z, counts[None, :]) - z.gather(1, own[:, None])[:, 0],)

        (there,) = over_blocks(cross_entropy, x, gather_with_gradient(y))
        (back,) = over_blocks(cross_entropy, y, gather_with_gradient(x))
        return (there + back) / 2


class SigLIP(nn.Module):
    """``-sum_j log sigmoid((2 [i = j] - 1) (k x_i y_j + b))`` of each row i, unit vectors x and y.

    Zhai et al., "Sigmoid Loss for Language Image Pre-Training", arXiv 2303.15343: every pair is a
    yes-or-no question, summed over pairs and divided by the rows (not the pairs).

    Args:
        logit_scale: k, positive, where training starts.
        logit_bias: b, where training starts; as there are many more negatives it begins low.
        learnable: train log k and b; they belong to the loss, see `LossMixin.parameter_groups`.

    Shapes: as `CLIP`.
    """

    scope = "pairs"
    contract = TWO_VIEWS

    def __init__(
        self, logit_scale: float = 10.0, logit_bias: float = -10.0, learnable: bool = True
    ) -> None:
        super().__init__()
        self.log_scale = _log_scale(logit_scale, learnable)
        self.logit_bias = nn.Parameter(torch.tensor(logit_bias), requires_grad=learnable)

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y, valid = _unit_sides(features, other_features, valid)
        k, b = self.log_scale.to(x.dtype).exp(), self.logit_bias.to(x.dtype)
        counts, first = gather_with_gradient(valid), row_offset(x)
        if not len(counts):
            return x.sum(1)
        column = torch.arange(len(counts), device=x.device)

        def questions(s: Tensor, start: int, stop: int) -> tuple[Tensor]:
            own = torch.arange(start, stop, device=s.device) + first
            z = s * k + b
            z = torch.where(own[:, None] == column, z, -z)
            return (-torch.where(counts[None, :], F.logsigmoid(z), 0).sum(1),)

        return over_blocks(questions, x, gather_with_gradient(y))[0]


def _log_scale(scale: float, learnable: bool) -> nn.Parameter:
    if not scale > 0:
        raise ValueError(f"logit_scale must be positive, got {scale}.")
    return nn.Parameter(torch.tensor(math.log(scale)), requires_grad=learnable)


def _unit_sides(
    features: Tensor, other: Tensor | None, valid: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    x, y = two_views(features, other)
    if valid is None:
        valid = torch.ones(len(x), dtype=torch.bool, device=x.device)
    # By where, before the product: 0 times inf is NaN.
    x, y = (unit(torch.where(valid[:, None], side, 0)) for side in (x, y))
    return x, y, valid
