# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PPO's clipped loss, and with other bounds GRPO's and DAPO's."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import check_clip, clipped_pair, log_ratio, shares


class PPOClip(nn.Module):
    """``max(-A r, -A clamp(r, 1 - clip_low, 1 + clip_high))`` with r = p / p_old of each action.

    Schulman et al., arXiv 1707.06347; clip-higher is a larger ``clip_high`` (DAPO, arXiv
    2503.14476). Where A < 0 the loss is at most ``-A dual_clip`` (arXiv 1912.09729). The mean over
    rows is DAPO's token mean, over all ranks; for a mean over responses first, as in GRPO, add
    ``aggregation: sequence_mean`` (key ``grpo``). A row outside the bounds gets no gradient; in
    the first step on new data r is 1 and the gradient is that of REINFORCE. Log-ratios are held
    within +-20.

    Diagnostics: ``kl`` of the old policy from this one (nats), ``clip_fraction`` of the rows, and
    ``dual_clip_fraction``.

    Args:
        clip_low: how far below 1 the ratio may go, a fraction in [0, 1].
        clip_high: how far above 1.
        dual_clip: bound of the ratio where the advantage is negative, above 1; None for none.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``), and
    old_log_prob and advantage ``(N,)``, neither of which gets gradient.
    """

    scope = "rows"
    contract = Contract()

    def __init__(
        self, clip_low: float = 0.2, clip_high: float = 0.2, dual_clip: float | None = 3.0
    ) -> None:
        super().__init__()
        check_clip(clip_low, clip_high)
        if dual_clip is not None and not dual_clip > 1:
            raise ValueError(f"dual_clip must be above 1 or null, got {dual_clip}; write 3.0.")
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip

    def forward(self, log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        plain, clipped = clipped_pair(
            log_prob, old_log_prob, advantage, self.clip_low, self.clip_high
        )
        loss = torch.maximum(plain, clipped)
        logs, clip = log_ratio(log_prob, old_log_prob), clipped > plain
        if self.dual_clip is None:
            self.diagnostics = shares(logs, clip_fraction=clip)
            return loss
        bound = -advantage.detach() * self.dual_clip
        dual = (loss > bound) & (advantage < 0)
        self.diagnostics = shares(logs, clip_fraction=clip, dual_clip_fraction=dual)
        return torch.where(advantage < 0, torch.minimum(loss, bound), loss)
