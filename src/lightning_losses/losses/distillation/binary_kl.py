# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Class by class distillation on a head of its own (DHKD)."""

from __future__ import annotations

import math

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST


class BinaryKLDistillation(nn.Module):
    """``T^2 sum_c KL(1/2 || sigmoid((s_c - t_c) / T))`` over yes and no of each class.

    Yang et al., "Dual-Head Knowledge Distillation", arXiv 2411.08937: a second, auxiliary head
    takes this loss, so that its gradients do not fight cross-entropy's on the first. Pass the
    second head's logits as ``aux_logits``; the first head has a ``ce`` term as always.

    Args:
        temperature: T, positive.
        normalized: the form above; False is ``KL(sigmoid(t / T) || sigmoid(s / T))``, which
            the paper shows to collapse.

    Shapes: aux_logits and teacher_logits ``(N, C)``; per-row values ``(N,)``, nats, summed over
    classes. The teacher gets no gradient.

    Raises:
        ValueError: a temperature that is not positive.
    """

    scope = "rows"
    contract = Contract(
        target=("none",),
        head="none",
        same_columns=(("aux_logits", "teacher_logits"),),
        by_chunks=True,
    )

    def __init__(self, temperature: float = 2.0, normalized: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.normalized = temperature, normalized

    def forward(self, aux_logits: Tensor, teacher_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # A class that both mask agrees; inf - inf would not.
        s, t = (z.clamp(min=LOWEST) / self.temperature for z in (aux_logits, teacher_logits))
        t = t.detach()
        if self.normalized:
            d = s - t
            kl = -math.log(2) - (F.logsigmoid(d) + F.logsigmoid(-d)) / 2
        else:
            yes = t.sigmoid() * (F.logsigmoid(t) - F.logsigmoid(s))
            kl = yes + (-t).sigmoid() * (F.logsigmoid(-t) - F.logsigmoid(-s))
        return self.temperature**2 * kl.sum(1)
