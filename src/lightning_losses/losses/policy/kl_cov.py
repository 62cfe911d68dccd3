# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""KL-Cov: holds the actions that drive entropy down near the old policy."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import log_ratio, shares
from lightning_losses.losses.shared.token_covariance import first, token_covariance


class KLCov(nn.Module):
    """``-A r``, plus ``coefficient * |log r|`` for the rows of the largest covariances.

    The covariance of a row is (A - mean A)(log p - mean log p); the ``max(1, ratio * rows)``
    largest of all ranks are penalised (Cui et al., arXiv 2505.22617). Nothing is clipped. In the
    first step on new data log r is 0, so the penalty and its gradient are too: it takes several
    steps on one batch of responses to act. The authors' runs have coefficient 1 and ratio 0.002
    (7B) or 0.0002 (32B); the default is that of verl.

    Diagnostics: ``kl`` of the old policy from this one, ``abs_log_ratio`` (nats), and
    ``penalised_fraction`` of the rows.

    Args:
        ratio: rows to penalise, a fraction of those that count.
        coefficient: of the penalty.

    Shapes: per-row values ``(N,)`` from the statistic log_prob of the actions (``target``), and
    old_log_prob and advantage ``(N,)``, neither of which gets gradient.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, ratio: float = 2e-4, coefficient: float = 0.1) -> None:
        super().__init__()
        if not (0 <= ratio <= 1 and coefficient >= 0):
            raise ValueError(
                f"ratio must be in [0, 1] and coefficient at least 0, got {ratio} and "
                f"{coefficient}; write 0.002 and 1.0."
            )
        self.ratio, self.coefficient = ratio, coefficient

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        advantage: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        logs = log_ratio(log_prob, old_log_prob)
        loss = -advantage.detach() * logs.exp()
        valid = torch.ones_like(log_prob, dtype=torch.bool) if valid is None else valid
        covariance = token_covariance(advantage, log_prob, valid)
        largest = first(torch.where(valid, -covariance, torch.inf), self.ratio, valid)
        self.diagnostics = shares(logs, penalised_fraction=largest) | {
            "abs_log_ratio": logs.detach().abs()
        }
        return torch.where(largest, loss + self.coefficient * logs.abs(), loss)
