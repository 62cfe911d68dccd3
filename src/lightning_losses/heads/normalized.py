# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Heads on the sphere: cosines to class directions, with or without a margin."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.losses.shared.rows_math import unit


class NormalizedHead(nn.Module):
    """Logits ``scale cos(x, w_k)``; with ``loss=ce`` the normalised softmax (NormFace).

    Wang et al., "NormFace", arXiv 1704.06369. With scale s and C classes cross-entropy cannot fall
    below ``log(1 + (C - 1) exp(-s C / (C - 1)))``: a scale too small cannot be trained to 0.

    Args:
        in_features: D.
        out_features: C.
        scale: s, the inverse of a temperature; 20 is the temperature 0.05.
        learnable_scale: train s, as NormFace.

    Shapes: features ``(..., D)`` to logits ``(..., C)``, float32 at least.

    Raises:
        ValueError: a scale that is not positive.

    Examples:
        >>> head = NormalizedHead(2, 2, scale=20.0)
        >>> head.weight.data = torch.eye(2)
        >>> head(torch.tensor([[3.0, 0.0], [1.0, 1.0]])).detach()  # lengths do not count
        tensor([[20.0000,  0.0000],
                [14.1421, 14.1421]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        scale: float = 20.0,
        learnable_scale: bool = False,
    ) -> None:
        super().__init__()
        if not scale > 0:
            raise ValueError(f"scale must be positive, got {scale}.")
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)
        self.log_scale = nn.Parameter(torch.tensor(math.log(scale))) if learnable_scale else None
        self.scale = scale

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., C)``."""
        with torch.autocast(features.device.type, enabled=False):
            cosine = cosines(features, self.weight)
            if self.log_scale is None:
                return self.scale * cosine
            return self.log_scale.to(cosine.dtype).exp() * cosine


class CosFaceHead(NormalizedHead):
    """Logits ``s cos(x, w_k)``, and ``s (cos - m)`` for the target class while training.

    Wang et al., "CosFace", arXiv 1801.09414. Use with ``loss=ce``; without target
    (validation) there is no margin.

    Args:
        in_features: D.
        out_features: C.
        scale: s.
        margin: m, in cosine.

    Shapes: features ``(N, D)``, target ``(N,)`` class indices, negative for none; returns
    logits ``(N, C)``.

    Raises:
        ValueError: a target that is not one class a row, in `forward`.

    Examples:
        >>> head = CosFaceHead(2, 2, scale=10.0, margin=0.35)
        >>> head.weight.data = torch.eye(2)
        >>> head(torch.tensor([[3.0, 0.0]]), torch.tensor([0])).detach()  # 10 (1 - 0.35)
        tensor([[6.5000, 0.0000]])
    """

    def __init__(
        self, in_features: int, out_features: int, scale: float = 64.0, margin: float = 0.35
    ) -> None:
        super().__init__(in_features, out_features, scale)
        self.margin = margin

    def forward(self, features: Tensor, target: Tensor | None = None) -> Tensor:
        """Logits ``(N, C)``."""
        with torch.autocast(features.device.type, enabled=False):
            cosine = cosines(features, self.weight)
            if target is not None:
                own = _one_hot(target, cosine)
                cosine = torch.where(own, self.with_margin(cosine), cosine)
            return self.scale * cosine

    def with_margin(self, cosine: Tensor) -> Tensor:
        """What takes the place of the target's cosine."""
        return cosine - self.margin


class ArcFaceHead(CosFaceHead):
    """Logits ``s cos(x, w_k)``, and ``s cos(angle + m)`` for the target class while training.

    Deng et al., "ArcFace", arXiv 1801.07698. Use with ``loss=ce``. To get the numbers of

    - pytorch-metric-learning, ``ArcFaceLoss()``: ``margin: 0.49916``, its 28.6 degrees;
    - insightface: ``gradient: straight_through``, ``guard: false``.

    Args:
        in_features: D.
        out_features: C.
        scale: s.
        margin: m, in radians (28.6 degrees are 0.5).
        gradient: ``exact`` is the derivative, ``s sin(angle + m) / sin(angle)`` of the cosine,
            large at small angles; ``straight_through`` takes s, as insightface does, and is the
            safe one in half precision. Same value, another training.
        guard: beyond ``pi - m`` the cosine would rise again; take ``cos(angle) - m sin(m)`` there.
            insightface has none.

    Shapes: features ``(N, D)``, target ``(N,)`` class indices, negative for none; returns
    logits ``(N, C)``.

    Raises:
        ValueError: another word for gradient; a target that is not one class a row, in `forward`.

    Examples:
        >>> head = ArcFaceHead(2, 2, scale=10.0, margin=0.5)
        >>> head.weight.data = torch.eye(2)
        >>> head(torch.tensor([[3.0, 0.0]])).detach()  # lengths do not count
        tensor([[10.,  0.]])
        >>> head(torch.tensor([[3.0, 0.0]]), torch.tensor([0])).detach()  # 10 cos(0 + 0.5)
        tensor([[8.7758, 0.0000]])
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        scale: float = 64.0,
        margin: float = 0.5,
        gradient: Literal["exact", "straight_through"] = "exact",
        guard: bool = True,
    ) -> None:
        super().__init__(in_features, out_features, scale, margin)
        if gradient not in ("exact", "straight_through"):
            raise ValueError(f"gradient must be 'exact' or 'straight_through', got {gradient!r}.")
        self.gradient, self.guard = gradient, guard

    def with_margin(self, cosine: Tensor) -> Tensor:
        """What takes the place of the target's cosine."""
        if self.gradient == "straight_through":
            return cosine + (self._turned(cosine.detach()) - cosine.detach())
        return self._turned(cosine)

    def _turned(self, cosine: Tensor) -> Tensor:
        m = self.margin
        # cos(a + m) by addition, not by acos; the sine has an infinite slope at 0.
        inside = cosine.abs() < 1 - 1e-7
        sine = torch.where(inside, 1 - cosine.square(), 1.0).sqrt()
        turned = cosine * math.cos(m) - torch.where(inside, sine, 0.0) * math.sin(m)
        if not self.guard:
            return turned
        return torch.where(cosine > math.cos(math.pi - m), turned, cosine - m * math.sin(m))


def cosines(features: Tensor, weight: Tensor) -> Tensor:
    """Cosines ``(..., C)`` of features and class directions, float32 at least."""
    dtype = torch.promote_types(features.dtype, torch.float32)
    return unit(features.to(dtype)) @ unit(weight.to(dtype)).t()


def _one_hot(target: Tensor, like: Tensor) -> Tensor:
    if target.shape != like.shape[:-1]:
        raise ValueError(
            f"target must have shape {tuple(like.shape[:-1])}, one class a row of features, got "
            f"{tuple(target.shape)}."
        )
    return target[..., None] == torch.arange(like.shape[-1], device=like.device)
