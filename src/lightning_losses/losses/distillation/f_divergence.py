# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""f-divergences of a prediction from a teacher's: KL both ways and everything between."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import kl_divergence, log_softmax

Kind = Literal["alpha", "jensen_shannon", "total_variation"]
KINDS = ("alpha", "jensen_shannon", "total_variation")

#: Log of the largest ratio to a power that is taken as it is; beyond, a straight line goes on, so
#: that value and gradient stay finite in float32.
LARGEST = 30.0


class FDivergence(nn.Module):
    """``sum_k q_k f(p_k / q_k)`` of teacher p and student q, in nats; 0 where they are equal.

    ``alpha``: ``(sum_k p_k^alpha q_k^(1 - alpha) - 1) / (alpha (alpha - 1))``, which is KL(p || q)
    at 1, KL(q || p) at 0, 4 times the squared Hellinger distance at 1/2, and half of Pearson's and
    Neyman's chi-squared at 2 and -1. Outside [0, 1] its gradient is not bounded. Wang et al.,
    "AlphaNet", arXiv 2102.07954, and EQ-Net, arXiv 2308.07650, whose gradient this has; their value
    is another, and their weights are clipped. ``jensen_shannon`` (at most log 2) and
    ``total_variation`` (at most 1): Wen et al., arXiv 2307.15190.

    Args:
        kind: which family.
        alpha: of the first.

    Shapes: logits and teacher_logits ``(N, C)``; per-row values ``(N,)``. The teacher gets no
    gradient.
    """

    scope = "rows"
    contract = Contract(
        target=("none",), same_columns=(("logits", "teacher_logits"),), by_chunks=True
    )

    def __init__(self, kind: Kind = "alpha", alpha: float = 0.5) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}.")
        if not math.isfinite(alpha):
            raise ValueError(f"alpha must be finite, got {alpha}.")
        self.kind, self.alpha = kind, alpha

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p, log_q = log_softmax(teacher_logits.detach()), log_softmax(logits)
        if self.kind == "alpha":
            return alpha_divergence(log_p, log_q, self.alpha)
        if self.kind == "total_variation":
            return (log_p.exp() - log_q.exp()).abs().sum(1) / 2
        log_m = torch.logaddexp(log_p, log_q) - math.log(2)
        return (kl_divergence(log_p, log_m) + kl_divergence(log_q, log_m)) / 2


def alpha_divergence(log_p: Tensor, log_q: Tensor, alpha: float) -> Tensor:
    """The alpha family on log-probabilities ``(N, C)``: per-row values ``(N,)``.

    Written as a mean under p or under q, so that nothing cancels at alpha 1 or 0.
    """
    gap = (log_p - log_q).clamp(-1e6, 1e6)  # more only between a forbidden class and a possible one
    if alpha >= 0.5:
        return (log_p.exp() * _power(gap, alpha - 1)).sum(1) / alpha
    return (log_q.exp() * _power(gap, alpha)).sum(1) / (alpha - 1)


def _power(x: Tensor, a: float) -> Tensor:
    """``(exp(a x) - 1) / a``, x at a = 0."""
    if abs(a) < 1e-12:  # smaller ones are lost among float32's subnormals
        return x
    y = a * x
    line = math.exp(LARGEST) * (1 + y - LARGEST) - 1
    return torch.where(y > LARGEST, line, torch.expm1(y.clamp(max=LARGEST))) / a
