# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""C51: temporal-difference learning of a distribution over returns."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import log_softmax
from lightning_losses.targets.two_hot import check_atoms, spread


class CategoricalTD(nn.Module):
    """Cross-entropy to the projection of ``reward + discount * Z`` onto the atoms.

    Bellemare, Dabney and Munos, "A Distributional Perspective on Reinforcement Learning", arXiv
    1707.06887. Returns beyond the atoms are moved to the ends. Whole logits, because the target
    depends on another distribution; where returns are plain numbers use `two_hot`.

    Args:
        min_value: first atom, the lowest return.
        max_value: last atom. There are as many atoms as logits: 51 in the paper.

    Shapes: logits ``(N, C)`` of the action taken, next_logits ``(N, C)`` of the best next action
    (of the target network, no gradient), reward ``(N,)``, discount ``(N,)``, 0 where an episode
    ended; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), same_columns=(("logits", "next_logits"),))

    def __init__(self, min_value: float = -10.0, max_value: float = 10.0) -> None:
        super().__init__()
        check_atoms("c51", min_value, max_value, 1)
        self.min_value, self.max_value = min_value, max_value

    def forward(
        self,
        logits: Tensor,
        next_logits: Tensor,
        reward: Tensor,
        discount: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if valid is not None:
            reward = torch.where(valid, reward, 0.0)
            discount = torch.where(valid, discount, 0.0)
        soft = self.project(next_logits.detach(), reward, discount)
        log_p = log_softmax(logits)
        # Where there is no mass a forbidden class may have any log p: 0 times it stays 0.
        return -(soft * log_p).sum(1)

    def project(self, next_logits: Tensor, reward: Tensor, discount: Tensor) -> Tensor:
        """The soft target ``(N, C)``."""
        classes = next_logits.shape[1]
        p = log_softmax(next_logits).exp()
        atoms = torch.linspace(
            self.min_value, self.max_value, classes, dtype=p.dtype, device=p.device
        )
        returns = reward[:, None].to(p.dtype) + discount[:, None].to(p.dtype) * atoms
        return spread(returns, p, self.min_value, self.max_value, classes)
