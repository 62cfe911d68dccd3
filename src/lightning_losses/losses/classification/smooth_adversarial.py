# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Smooth adversarial comp-sum loss: a comp-sum loss, and margins that an attack cannot move."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.shared.rows_math import LOWEST, log_softmax


class SmoothAdversarial(nn.Module):
    """``Phi(sum_{k != y} exp(-D_k / rho)) + nu |D_adv - D|_2`` with margins ``D_k = f_y - f_k``.

    Phi is that of `CompSum` at tau. Mao, Mohri and Zhong, arXiv 2304.07288. ``logits_adv`` come
    from a provider (`lightning_losses.providers.PGD`); with ``attack: margin`` it ascends the norm,
    as the paper's. Where nothing moved, the norm has gradient 0; a class that is
    -inf in both is no part of it.

    Args:
        tau: as in `CompSum`.
        rho: scale of the margins, positive.
        nu: weight of the second summand, at least 0.

    Shapes: logits and logits_adv ``(N, C)``, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "logits_adv"),))

    def __init__(self, tau: float = 1.0, rho: float = 1.0, nu: float = 1.0) -> None:
        super().__init__()
        if not (rho > 0 and nu >= 0):
            raise ValueError(f"rho must be positive and nu at least 0, got {rho} and {nu}.")
        self.comp_sum, self.rho, self.nu = CompSum(tau), rho, nu

    def forward(self, logits: Tensor, logits_adv: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        y = target[:, None]
        log_prob = log_softmax(logits / self.rho).gather(1, y).squeeze(1)
        loss: Tensor = self.comp_sum(log_prob)
        if not self.nu:
            return loss
        before, after = (z.clamp(min=LOWEST) for z in (logits, logits_adv))  # -inf - -inf is NaN
        moved = after - before
        # More than the bound only between a forbidden class and a possible one: squares overflow.
        moved = (moved.gather(1, y) - moved).clamp(-1e15, 1e15)
        moved = torch.where((before == LOWEST) & (after == LOWEST), 0.0, moved)
        # torch's norm has gradient 0 at 0, where sqrt of a sum of squares has NaN.
        norm = torch.linalg.vector_norm(moved, dim=1)
        loss = loss + self.nu * norm
        return loss
