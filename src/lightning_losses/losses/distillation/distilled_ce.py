# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Labels and a teacher at once: a mean of cross-entropy and distillation."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.distillation.kd import KnowledgeDistillation


class DistilledCrossEntropy(nn.Module):
    """``alpha T^2 KL(teacher || student) + (1 - alpha) CE`` in nats, KL of distributions at T.

    Hinton, Vinyals and Dean, arXiv 1503.02531; with alpha 1/2 and T 1 the guidance of EQ-Net
    (arXiv 2308.07650), where sub-networks are run from the largest to the smallest, and each one's
    teacher is the one before. Which output that is, the step says: it passes teacher_logits.

    Args:
        alpha: share of the teacher, in [0, 1].
        temperature: T, positive; cross-entropy is taken at 1.

    Shapes: logits and teacher_logits ``(N, C)``, target by its log-probability; soft targets will
    do. Per-row values ``(N,)``. The teacher gets no gradient.
    """

    scope = "rows"
    contract = Contract(
        target=("class", "soft"), same_columns=(("logits", "teacher_logits"),), by_chunks=True
    )

    def __init__(self, alpha: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
        self.alpha, self.teacher = alpha, KnowledgeDistillation(temperature)

    def forward(self, log_prob: Tensor, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        loss: Tensor = self.alpha * self.teacher(logits, teacher_logits)
        if self.alpha < 1:  # 0 times inf is NaN
            loss = loss - (1 - self.alpha) * log_prob
        return loss
