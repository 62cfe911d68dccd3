# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""LDR-KL: the worst case over distributions of labels, within a KL penalty."""

from __future__ import annotations

import math
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract


class LDRKL(nn.Module):
    """``lambda (log sum_k exp(q_k / lambda) - log C)`` with ``q_k = margin 1[k != y] + g_k - g_y``.

    Zhu et al., "Label Distributionally Robust Losses for Multi-class Classification",
    arXiv 2112.14869. Without normalisation and margin, lambda = 1 is cross-entropy minus log C,
    lambda towards 0 the hinge of Crammer and Singer, towards infinity the mean of q. At least
    ``-lambda log C``, so it may be negative.

    Args:
        margin: at least 0, in units of g.
        temperature: lambda, positive.
        normalize: ``softplus``: g is softplus(f) over its mean, as in the authors' code: g sums to
            C; ``absolute``: f over the mean of abs(f); None: g is f.

    Shapes: logits ``(N, C)`` whole and finite, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(
        self,
        margin: float = 2.0,
        temperature: float = 1.0,
        normalize: Literal["softplus", "absolute"] | None = "softplus",
    ) -> None:
        super().__init__()
        if not (temperature > 0 and margin >= 0):
            raise ValueError(
                f"temperature must be positive and margin at least 0, got {temperature}, {margin}."
            )
        check_normalize(normalize)
        self.margin, self.temperature, self.normalize = margin, temperature, normalize

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        q = margins(normalized(logits, self.normalize), target, self.margin)
        return kl_robust(q, torch.full_like(q[:, 0], self.temperature))


def check_normalize(how: str | None) -> None:
    """Raise ValueError for a normalisation that there is not."""
    if how not in ("softplus", "absolute", None):
        raise ValueError(f"normalize must be 'softplus', 'absolute' or None, got {how!r}.")


def normalized(f: Tensor, how: str | None) -> Tensor:
    """Scores g ``(N, C)`` whose scale does not depend on that of the logits."""
    if how is None:
        return f
    if how == "absolute":
        scale = f.abs().mean(1, keepdim=True)
        return f / scale.where(scale > 0, 1.0)  # zero logits: a gradient of order 1
    # C softmax(log softplus f): far below 0 softplus underflows to 0 / 0, and is e^f.
    log_sp = torch.where(f < -50, f, (-F.logsigmoid(-f.clamp(min=-50))).log())
    return f.shape[1] * torch.softmax(log_sp, dim=1)


def margins(g: Tensor, target: Tensor, margin: float) -> Tensor:
    """``margin 1[k != y] + g_k - g_y``, ``(N, C)``."""
    y = target[:, None]
    return (g - g.gather(1, y) + margin).scatter(1, y, 0.0)


def kl_robust(q: Tensor, temperature: Tensor) -> Tensor:
    """``t (logsumexp(q / t) - log C)`` of each row, with its own temperature t ``(N,)``."""
    return temperature * ((q / temperature[:, None]).logsumexp(1) - math.log(q.shape[1]))
