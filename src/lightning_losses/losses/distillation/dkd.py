# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Decoupled knowledge distillation: how sure of the target, and what of the other classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import (
    LOWEST,
    from_top,
    kl_divergence,
    log_softmax,
)


class DecoupledKD(nn.Module):
    """``T^2 (alpha KL(b_t || b_s) + beta KL(q_t || q_s))`` of softened teacher t and student s.

    b is the pair (p_target, 1 - p_target), q the softmax without the target class. Zhao et al.,
    "Decoupled Knowledge Distillation", arXiv 2203.08679. ``alpha = 1``, ``beta = 1 - p_target`` of
    the teacher would be plain distillation. 1 - p comes from a log-sum-exp of the other classes:
    as a difference it rounds to 0 for a confident student, and its logarithm to -inf.

    Args:
        alpha: weight of the target part.
        beta: weight of the other classes; the authors have 1 to 8, larger for larger gaps.
        temperature: T, positive.

    Shapes: logits and teacher_logits ``(N, C)``, target ``(N,)``; per-row values ``(N,)``, nats.
    With two classes the second part is 0. The teacher gets no gradient. The authors let the weight
    grow over 20 epochs: write it as a schedule.

    Raises:
        ValueError: a temperature that is not positive.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "teacher_logits"),), by_chunks=True)

    def __init__(self, alpha: float = 1.0, beta: float = 8.0, temperature: float = 4.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.alpha, self.beta, self.temperature = alpha, beta, temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        t = self.temperature
        teacher_pair, teacher_rest = _parts(teacher_logits.detach() / t, target)
        student_pair, student_rest = _parts(logits / t, target)
        known = kl_divergence(teacher_pair, student_pair)
        rest = kl_divergence(teacher_rest, student_rest)
        return t**2 * (self.alpha * known + self.beta * rest)


def _parts(z: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """log (p, 1 - p) of the target ``(N, 2)``, and log-softmax without it ``(N, C)``."""
    z = from_top(z)
    own = torch.zeros_like(z, dtype=torch.bool).scatter(1, target[:, None], True)
    rest = torch.where(own, LOWEST, z)
    pair = torch.stack([z.gather(1, target[:, None])[:, 0], rest.logsumexp(1)], 1)
    return log_softmax(pair), torch.where(own, LOWEST, log_softmax(rest))
