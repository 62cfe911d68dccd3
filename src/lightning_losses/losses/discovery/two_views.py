# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two views of a sample agree: one teaches the other by its own, sharper prediction."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import from_top, log_softmax
from lightning_losses.schedules import Schedule, as_schedule

#: Two views of logits and no target.
TWO_LOGITS = Contract(target=("none",), same_columns=(("logits", "other_logits"),))


class SelfDistillation(nn.Module):
    """``(CE(q_2, p_1) + CE(q_1, p_2)) / 2``: q is detached and sharper than p, per view.

    Wen, Zhao and Qi, "Parametric Classification for Generalized Category Discovery" (SimGCD), arXiv
    2211.11727. ``p = softmax(z / T)``, ``q = softmax(z.detach() / T_teacher)``.

    Args:
        temperature: T, positive.
        teacher_temperature: T_teacher, positive; a number, or a schedule over optimizer steps such
            as ``{start: 0.07, end: 0.04, steps: N}``, N the steps of the authors' 30 epochs.

    Shapes: logits and other_logits ``(N, C)``; per-row values ``(N,)`` in nats.

    Raises:
        ValueError: a temperature that is not positive, at any step.
    """

    scope = "rows"
    contract = TWO_LOGITS

    def __init__(
        self,
        temperature: float = 0.1,
        teacher_temperature: float | Schedule | Mapping[str, float] = 0.04,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.schedule = temperature, as_schedule(teacher_temperature)
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Take the teacher's temperature of this optimizer step."""
        self.teacher_temperature = float(self.schedule(step))
        if not self.teacher_temperature > 0:
            raise ValueError(
                f"teacher_temperature must be positive, got {self.teacher_temperature} at step "
                f"{step} of {self.schedule!r}."
            )

    def forward(self, logits: Tensor, other_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        return (self._teach(logits, other_logits) + self._teach(other_logits, logits)) / 2

    def _teach(self, teacher: Tensor, student: Tensor) -> Tensor:
        q = log_softmax(from_top(teacher.detach()) / self.teacher_temperature).exp()
        return -(q * log_softmax(from_top(student) / self.temperature)).sum(1)
