# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""CISPO: the clipped importance weight multiplies the gradient instead of cutting it off."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import check_clip, log_ratio, shares


class CISPO(nn.Module):
    """``-clamp(r, 1 - clip_low, 1 + clip_high) A log p``, the clamped ratio r without gradient.

    MiniMax-M1, arXiv 2506.13585: where PPO's clip gives a token no gradient, here every token keeps
    one, of bounded size.

    Diagnostics: ``kl`` of the old policy from this one (nats), ``clip_fraction`` of the rows.

    Args:
        clip_low: how far below 1 the ratio may go, a fraction in [0, 1].
        clip_high: how far above 1.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``), and
    old_log_prob and advantage ``(N,)``, neither of which gets gradient.

    Raises:
        ValueError: bounds that a ratio of 1 is not within.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, clip_low: float = 0.2, clip_high: float = 0.28) -> None:
        super().__init__()
        check_clip(clip_low, clip_high)
        self.clip_low, self.clip_high = clip_low, clip_high

    def forward(self, log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        ratio = log_ratio(log_prob.detach(), old_log_prob).exp()
        weight = ratio.clamp(1 - self.clip_low, 1 + self.clip_high)
        self.diagnostics = shares(ratio.log(), clip_fraction=weight != ratio)
        return -weight * advantage.detach() * log_prob
