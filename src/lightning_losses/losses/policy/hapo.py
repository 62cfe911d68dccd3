# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""HAPO: clipping and advantage of each token depend on how open the policy was there."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import check_clip, log_ratio, shares
from lightning_losses.losses.shared.relative_entropy import entropy_scale


def adaptive_clip(h: Tensor, low: float, high: float, alpha: float) -> tuple[Tensor, Tensor]:
    """How far below and above 1 a ratio may go, each ``(N,)``: wider down for sure tokens (h < 0),
    wider up for open ones (h > 0).
    """
    return low * (1 - alpha * h.clamp(max=0)), high * (1 + alpha * h.clamp(min=0))


def adaptive_advantage(
    advantage: Tensor, h: Tensor, ratio: Tensor, low: Tensor, high: Tensor, beta: float
) -> Tensor:
    """``A (1 + beta h)`` where an open token's ratio has left, or a sure one's is within, half of
    the bounds; A elsewhere. All ``(N,)``.
    """
    inside = (ratio > 1 - low / 2) & (ratio < 1 + high / 2)
    return torch.where((h > 0) ^ inside, advantage * (1 + beta * h), advantage)


class HAPO(nn.Module):
    """PPO's clipped loss with bounds and advantage by token, from its relative entropy h.

    "From Uniform to Heterogeneous: Tailoring Policy Optimization to Every Token's Nature",
    arXiv 2509.16591. See `EntropyScale` (signed, as the paper has it), `adaptive_clip` and
    `adaptive_advantage`; `hapo_advantage` and `sampling.adaptive_temperature` are the other parts.
    h is over the rows of all ranks of a call: it depends on the size of micro-batches.

    Diagnostics: ``kl`` of the old policy from this one (nats), ``clip_fraction`` of the rows, whose
    ratio is outside of their bounds.

    Args:
        clip_low: how far below 1 the ratio may go at h = 0, a fraction in [0, 1].
        clip_high: how far above 1.
        dual_clip: bound of the ratio where the advantage is negative, above 1; None for none.
        pivot: the quantile of entropy where h = 0, in [0, 1].
        alpha: how much h widens the bounds, in [0, 1].
        beta: how much h changes the advantage.

    Shapes: per-row values ``(N,)`` from the statistics log_prob and entropy, of which entropy gets
    no gradient; old_log_prob and advantage ``(N,)``, without gradient.

    Raises:
        ValueError: settings out of range.
    """

    scope = "batch"
    contract = Contract()

    def __init__(
        self,
        clip_low: float = 0.2,
        clip_high: float = 0.28,
        dual_clip: float | None = 10.0,
        pivot: float = 0.8,
        alpha: float = 1.0,
        beta: float = 1.0,
    ) -> None:
        super().__init__()
        check_clip(clip_low, clip_high)
        if dual_clip is not None and not dual_clip > 1:
            raise ValueError(f"dual_clip must be above 1 or null, got {dual_clip}; write 10.0.")
        if not (0 <= pivot <= 1 and alpha >= 0 and beta >= 0):
            raise ValueError(
                "pivot must be in [0, 1], alpha and beta at least 0, got "
                f"{pivot}, {alpha} and {beta}; write 0.8, 1.0, 1.0."
            )
        self.clip_low, self.clip_high, self.dual_clip = clip_low, clip_high, dual_clip
        self.pivot, self.alpha, self.beta = pivot, alpha, beta

    def forward(
        self,
        log_prob: Tensor,
        entropy: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        entropy = entropy.detach()
        h = entropy_scale(entropy, valid, self.pivot).place(entropy)
        low, high = adaptive_clip(h, self.clip_low, self.clip_high, self.alpha)
        ratio = log_ratio(log_prob, old_log_prob).exp()
        advantage = adaptive_advantage(advantage.detach(), h, ratio.detach(), low, high, self.beta)
        clipped = torch.minimum(torch.maximum(ratio, 1 - low), 1 + high)
        loss = torch.maximum(-advantage * ratio, -advantage * clipped)
        self.diagnostics = shares(ratio.detach().log(), clip_fraction=clipped != ratio)
        if self.dual_clip is None:
            return loss
        return torch.where(advantage < 0, torch.minimum(loss, -advantage * self.dual_clip), loss)
