# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PLD: the student ranks the classes as the teacher does, the true one first."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST, from_top


class PlackettLuceDistillation(nn.Module):
    """``sum_r w_r (log sum_{q >= r} exp s_q - s_r)`` over ranks r of a ranking of the classes.

    The ranking has the true class first, then the classes by the teacher's logits, ties by index;
    w_r is the teacher's probability of the class at rank r. Each summand is a choice of that class
    among those that are left (Plackett and Luce). "PLD: A Choice-Theoretic List-Wise Knowledge
    Distillation", arXiv 2506.12542. It contains cross-entropy, as its first choice: put
    no ``ce`` beside it, and no factor T^2.

    Args:
        temperature: of the teacher's probabilities; 1 is best on ImageNet, 4 the CIFAR table's.
        weights: ``teacher``, or ``uniform`` for 1 / (ranks): ListMLE.
        prefix: only the first so many ranks choose; None is all.

    Shapes: logits and teacher_logits ``(N, C)``, target ``(N,)``; per-row values ``(N,)``, nats.
    The teacher gets no gradient. Time C log C a row.

    Raises:
        ValueError: a temperature that is not positive, unknown weights, a prefix below 1.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "teacher_logits"),), by_chunks=True)

    def __init__(
        self,
        temperature: float = 1.0,
        weights: Literal["teacher", "uniform"] = "teacher",
        prefix: int | None = None,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if weights not in ("teacher", "uniform"):
            raise ValueError(f"weights must be teacher or uniform, got {weights!r}.")
        if prefix is not None and prefix < 1:
            raise ValueError(f"prefix is a number of ranks, at least 1, got {prefix}.")
        self.temperature, self.weights, self.prefix = temperature, weights, prefix

    def forward(self, logits: Tensor, teacher_logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        teacher = teacher_logits.detach().clamp(min=LOWEST)
        first = teacher.scatter(1, target[:, None], torch.inf)
        order = first.argsort(dim=1, descending=True, stable=True)
        s = from_top(logits).gather(1, order)
        choices = _tail_logsumexp(s) - s
        if self.weights == "teacher":
            w = (from_top(teacher) / self.temperature).softmax(1).gather(1, order)
        else:
            w = torch.full_like(s, 1 / max(1, min(s.shape[1], self.prefix or s.shape[1])))
        if self.prefix is not None:
            w, choices = w[:, : self.prefix], choices[:, : self.prefix]
        return (w * choices).sum(1)


def _tail_logsumexp(s: Tensor) -> Tensor:
    """``log sum_{q >= r} exp s_q`` for each r, ``(N, C)``."""
    return s.flip(1).logcumsumexp(1).flip(1)
