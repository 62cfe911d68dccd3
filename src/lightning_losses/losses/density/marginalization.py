# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Self-consistency of a marginal and a conditional model of the same sequences."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class MarginalizationConsistency(nn.Module):
    """``(log p(before) + log p(x | before) - log p(before, x))^2``, 0 where they are consistent.

    Liu, Ramadge and Adams, "Generative Marginalization Models", arXiv 2310.12920: one network says
    log-probabilities of partly seen sequences, another of the next element; the law of conditional
    probability ties them together. This is the penalty of their training scheme; their likelihood,
    the marginal of nothing seen against log Z and the choice of positions are the step's.

    Shapes: log p(x | before) is the softmax statistic log_prob ``(N,)`` of logits and target
    (``inputs: {log_prob: NAME}`` takes a number per row instead); log_marginal and
    next_log_marginal ``(N,)``, without and with x; nats. Per-row values ``(N,)`` in nats squared.
    """

    scope = "rows"
    contract = Contract()

    def forward(
        self,
        log_prob: Tensor,
        log_marginal: Tensor,
        next_log_marginal: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        gap = log_marginal + log_prob - next_log_marginal
        if valid is not None:
            gap = torch.where(valid, gap, 0.0)
        return gap.square()
