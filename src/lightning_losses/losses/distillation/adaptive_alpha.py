# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptive distillation: of two alpha-divergences from a teacher, each row takes the larger."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.distillation.f_divergence import alpha_divergence
from lightning_losses.losses.shared.rows_math import log_softmax

#: This near to 1 an alpha is 1, as in the authors' code: a KL, which needs no clipping.
ONE = 1e-3


class AdaptiveAlphaDivergence(nn.Module):
    """``D_alpha(teacher || student)`` in nats, with the alpha of two that is worse for the row.

    A negative alpha punishes a student that is surer than the teacher, a positive one a student
    that misses what the teacher finds likely. Wang et al., "AlphaNet", arXiv 2102.07954, also in
    EQ-Net, arXiv 2308.07650. Ratios ``(p / q)^alpha`` are cut at ``clip``, with p the teacher's and
    q the student's probability; at alpha 1 (KL) they are not, since there gradients are bounded.

    Choice and gradient are the authors' at any input. Their value is a score function and means
    nothing; ours is the divergence, which goes on as its tangent where a ratio is cut: at least 0,
    and 0 where both are equal.

    Args:
        alpha_min: negative.
        alpha_max: positive.
        clip: largest ratio to the power alpha, above 1.

    Shapes: logits and teacher_logits ``(N, C)``; per-row values ``(N,)``. The teacher gets no
    gradient.
    """

    scope = "rows"
    contract = Contract(
        target=("none",), same_columns=(("logits", "teacher_logits"),), by_chunks=True
    )

    def __init__(self, alpha_min: float = -1.0, alpha_max: float = 1.0, clip: float = 5.0) -> None:
        super().__init__()
        if not -math.inf < alpha_min < 0 < alpha_max < math.inf:
            raise ValueError(
                "alpha_min must be negative and alpha_max positive, both finite, got "
                f"{alpha_min} and {alpha_max}; for one alpha of any sign write f_divergence."
            )
        if not 1 < clip < math.inf:
            raise ValueError(f"clip must be above 1 and finite, got {clip}.")
        self.alphas, self.clip = (alpha_min, alpha_max), clip

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p, log_q = log_softmax(teacher_logits.detach()), log_softmax(logits)
        (low, cut_low), (high, cut_high) = (
            clipped_alpha_divergence(log_p, log_q, alpha, self.clip) for alpha in self.alphas
        )
        return torch.where(cut_low > cut_high, low, high)


def clipped_alpha_divergence(
    log_p: Tensor, log_q: Tensor, alpha: float, clip: float
) -> tuple[Tensor, Tensor]:
    """The divergence with its tangent from ``(p / q)^alpha = clip`` on, and with a plain cut there.

    Of log-probabilities ``(N, C)``; both ``(N,)``, the second without gradient. The derivative of
    ``q f(p / q)`` by q is ``-(p / q)^alpha / alpha`` and a constant, so that the tangent in q has
    just the gradient of a clipped ratio.
    """
    if abs(alpha - 1) < ONE:
        value = alpha_divergence(log_p, log_q, 1.0)
        return value, value.detach()
    scale, bound = alpha * (alpha - 1), math.log(clip)
    y = alpha * (log_p - log_q).clamp(-1e6, 1e6)  # as in alpha_divergence
    q = log_q.exp()
    cut = q * torch.expm1(y.clamp(max=bound)) / scale
    # The student's probability at which the ratio is cut; beyond 1 only where it is not reached.
    edge = (log_p - bound / alpha).clamp(max=0).exp()
    tangent = clip * (edge / (alpha - 1) - q / alpha) - q / scale
    value = torch.where(y > bound, tangent, cut)
    return value.sum(1), cut.detach().sum(1)
