# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Clip-Cov: leaves out a few of the actions that drive entropy down."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import check_clip, clipped_pair, log_ratio, shares
from lightning_losses.losses.shared.token_covariance import first, shuffled, token_covariance


class ClipCov(nn.Module):
    """``keep max(-A r, -A clamp(r, 1 - clip_low, 1 + clip_high))`` with r = p / p_old.

    PPO's clipped loss, but ``keep`` is 0 for a random few of the rows with a covariance within
    bounds and 1 for all others.

    The covariance of a row is (A - mean A)(log p - mean log p). Of the rows with one between
    ``cov_low`` and ``cov_high``, that PPO has not clipped already, ``max(1, ratio * rows)`` are
    drawn and send no gradient; they still count in the mean (Cui et al., arXiv 2505.22617). At
    least one is left out, even of a small batch. No dual clip.

    The draw depends on the seed, the optimizer step and the place of a row among those that may be
    drawn: the same on any device and number of ranks, and after resuming.

    Diagnostics: ``kl`` of the old policy from this one (nats), ``clip_fraction``: rows left out.

    Args:
        ratio: rows to leave out, a fraction of those that count.
        cov_low: rows with a smaller covariance stay.
        cov_high: rows with a larger covariance stay.
        clip_low: how far below 1 the ratio of probabilities may go, a fraction in [0, 1].
        clip_high: how far above 1.
        seed: of the draw.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``), and
    old_log_prob and advantage ``(N,)``, neither of which gets gradient.
    """

    scope = "batch"
    contract = Contract()

    def __init__(
        self,
        ratio: float = 2e-4,
        cov_low: float = 1.0,
        cov_high: float = 5.0,
        clip_low: float = 0.2,
        clip_high: float = 0.2,
        seed: int = 0,
    ) -> None:
        super().__init__()
        check_clip(clip_low, clip_high)
        if not (0 <= ratio <= 1 and cov_low <= cov_high):
            raise ValueError(
                f"ratio must be in [0, 1] and cov_low <= cov_high, got {ratio}, {cov_low} and "
                f"{cov_high}; write 0.0002, 1.0, 5.0."
            )
        self.ratio, self.cov_low, self.cov_high = ratio, cov_low, cov_high
        self.clip_low, self.clip_high, self.seed, self.step = clip_low, clip_high, seed, 0

    def set_step(self, step: int) -> None:
        """Each optimizer step draws others."""
        self.step = step

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        plain, clipped = clipped_pair(
            log_prob, old_log_prob, advantage, self.clip_low, self.clip_high
        )
        valid = torch.ones_like(log_prob, dtype=torch.bool) if valid is None else valid
        covariance = token_covariance(advantage, log_prob, valid)
        inside = (covariance > self.cov_low) & (covariance < self.cov_high)
        candidates = valid & inside & ~(clipped > plain)
        left_out = first(shuffled(candidates, self.seed + 1_000_003 * self.step), self.ratio, valid)
        self.diagnostics = shares(log_ratio(log_prob, old_log_prob), clip_fraction=left_out)
        return torch.where(left_out, 0.0, torch.maximum(plain, clipped))
