# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Knowledge distillation: match the teacher's softened distribution."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import kl_divergence, log_softmax


class KnowledgeDistillation(nn.Module):
    """``T^2 KL(softmax(teacher / T) || softmax(student / T))``.

    Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network", arXiv 1503.02531. The
    factor T^2 keeps the gradient's size independent of T.

    Args:
        temperature: T, positive.

    Shapes: logits and teacher_logits ``(N, C)``; per-row values ``(N,)``. The teacher gets no
    gradient.
    """

    scope = "rows"
    contract = Contract(
        target=("none",), same_columns=(("logits", "teacher_logits"),), by_chunks=True
    )

    def __init__(self, temperature: float = 4.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        t = self.temperature
        teacher = log_softmax(teacher_logits.detach() / t)
        return t**2 * kl_divergence(teacher, log_softmax(logits / t))
