# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""REINFORCE, and AEPO's term: more of the rewarded among samples of another temperature."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class Reinforce(nn.Module):
    """``-R log p`` of each action; with ``above``, R counts 1 where it is larger and 0 elsewhere.

    Williams (1992). With ``above`` it is the entropy term of AEPO (arXiv 2510.08141): responses
    that were drawn at a high temperature and rewarded raise entropy, at a low one lower it; see
    `lightning_losses.sampling.EntropyGate`. Pass their reward in all of their rows and 0 in rows
    that were drawn as usual; pass them advantage 0, and a policy loss beside this one leaves them
    alone.

    Args:
        above: the reward that a row must exceed, or None for the reward itself; AEPO's is 0.05.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``), and
    reward ``(N,)``, which gets no gradient.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, above: float | None = None) -> None:
        super().__init__()
        self.above = above

    def forward(self, log_prob: Tensor, reward: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        reward = reward.detach()
        if self.above is not None:
            reward = (reward > self.above).to(log_prob.dtype)
        # Without reward nothing is said of the action, not even of one that cannot be.
        return torch.where(reward == 0, 0, -reward * log_prob)
