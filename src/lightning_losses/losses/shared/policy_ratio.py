# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The probability ratio of two policies, and PPO's clipped loss of it."""

from __future__ import annotations

from torch import Tensor

#: Log-ratios beyond this are held there, so that no ratio overflows. Gradient 0 outside.
LARGEST_LOG_RATIO = 20.0


def log_ratio(log_prob: Tensor, old_log_prob: Tensor) -> Tensor:
    """``log p - log p_old`` within +-20; the old policy gets no gradient."""
    return (log_prob - old_log_prob.detach()).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)


def clipped_pair(
    log_prob: Tensor, old_log_prob: Tensor, advantage: Tensor, low: float, high: float
) -> tuple[Tensor, Tensor]:
    """``(-A r, -A clamp(r, 1 - low, 1 + high))``, the larger of which is PPO's loss."""
    ratio = log_ratio(log_prob, old_log_prob).exp()
    advantage = advantage.detach()
    return -advantage * ratio, -advantage * ratio.clamp(1 - low, 1 + high)


def shares(logs: Tensor, **fractions: Tensor) -> dict[str, Tensor]:
    """What policy losses tell in their ``diagnostics``, one value a row.

    ``kl`` is the estimate ``log p_old - log p`` in nats of KL(old || policy); means over rows of
    the others, which are bool, are fractions.
    """
    told = {name: value.to(logs.dtype) for name, value in fractions.items()}
    return {"kl": -logs.detach(), **told}


def check_clip(low: float, high: float) -> None:
    """Raises ValueError unless a ratio of 1 is within the bounds and 0 is not below them."""
    if not (0 <= low <= 1 and high >= 0):
        raise ValueError(
            f"clip_low must be in [0, 1] and clip_high at least 0, got {low} and {high}; write "
            "clip_low: 0.2, clip_high: 0.2."
        )
