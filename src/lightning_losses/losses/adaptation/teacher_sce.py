# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Symmetric cross-entropy between a student and a slowly moving teacher (RMT)."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import log_softmax


class TeacherSymmetricCE(nn.Module):
    """``-(1 - alpha) sum p_t log p_s - alpha sum p_s log p_t`` of each row, in nats.

    Doebler et al., "Robust Mean Teacher for Continual and Gradual Test-Time Adaptation", arXiv
    2211.13081. Both targets are soft; `EMATeacher` provides the teacher's logits. The paper's other
    part is a contrastive loss of each sample's two views and its nearest source prototype:
    ``loss=[rmt_sce,nt_xent]``. A class that the teacher excludes (-inf) and the student does not
    costs about 1e30; one that both exclude costs nothing.

    Args:
        alpha: share of the reverse part, in [0, 1].

    Shapes: logits and teacher_logits ``(N, C)``; per-row values ``(N,)``. The teacher gets no
    gradient.

    Raises:
        ValueError: alpha out of range.
    """

    scope = "rows"
    contract = Contract(target=("none",), same_columns=(("logits", "teacher_logits"),))

    def __init__(self, alpha: float = 0.5) -> None:
        super().__init__()
        if not 0 <= alpha <= 1:
            raise ValueError(f"alpha must be in [0, 1], got {alpha}.")
        self.alpha = alpha

    def forward(self, logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_s, log_t = log_softmax(logits), log_softmax(teacher_logits.detach())
        forward = -(log_t.exp() * log_s).sum(1)
        reverse = -(log_s.exp() * log_t).sum(1)
        return (1 - self.alpha) * forward + self.alpha * reverse
