# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""GSPO: one importance ratio for all tokens of a response."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import check_clip, clipped_pair, shares
from lightning_losses.losses.shared.sequences import sequences


class GSPO(nn.Module):
    """PPO's clipped loss with the geometric mean of a response's token ratios for every token.

    Zheng et al., "Group Sequence Policy Optimization", arXiv 2507.18071: rewards are of responses,
    so ratios and clipping are too. Each token sends the gradient of its own log-probability with
    its own advantage (the paper's GSPO-token); where all tokens of a response have one advantage
    that is the gradient of the value. The key has ``aggregation: sequence_mean``. The paper's
    bounds are 3e-4 and 4e-4: the mean of many log-ratios is small. A response must be whole on one
    rank.

    Diagnostics: ``kl`` of the old policy from this one (nats), ``clip_fraction`` of the rows.

    Args:
        clip_low: how far below 1 the ratio of a response may go, a fraction in [0, 1].
        clip_high: how far above 1.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``);
    old_log_prob and advantage ``(N,)``, neither of which gets gradient; sequence_id ``(N,)`` int64.

    Raises:
        ValueError: bounds that a ratio of 1 is not within.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, clip_low: float = 3e-4, clip_high: float = 4e-4) -> None:
        super().__init__()
        check_clip(clip_low, clip_high)
        self.clip_low, self.clip_high = clip_low, clip_high

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        sequence_id: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        valid = torch.ones_like(sequence_id, dtype=torch.bool) if valid is None else valid
        found = sequences(sequence_id, valid)
        logs = torch.where(valid, log_prob.detach() - old_log_prob.detach(), 0)
        mean = (found.total(logs) / found.size.clamp(min=1))[found.slot]
        # The response's ratio in value, the token's in gradient; an action that cannot be has none.
        own = torch.where(log_prob.isfinite(), log_prob - log_prob.detach(), 0)
        plain, clipped = clipped_pair(
            mean + own,
            torch.zeros_like(mean),
            advantage,
            self.clip_low,
            self.clip_high,
        )
        self.diagnostics = shares(logs, clip_fraction=clipped > plain)
        return torch.maximum(plain, clipped)
