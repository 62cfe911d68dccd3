# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Ordinal softmax: class probabilities as differences of cumulative sigmoids, and their NLL."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.ordinal_levels import levels

#: Neighbouring logits nearer than this, or in the wrong order, are continued linearly.
GAP = 1e-4


class OrdinalNLL(nn.Module):
    """``-log P(y)`` with ``P(k) = sigmoid(z_(k-1)) - sigmoid(z_k)``: the cumulative link model.

    McCullagh, "Regression models for ordinal data" (1980); the ordinal softmax of Kennedy et al.,
    arXiv 2009.10277. Needs logits that fall with k. Where two neighbours are in the wrong order
    the probability would be negative: the loss goes on along its tangent, so that the gradient
    (1e4 there) restores the order. CORAL's loss has no such edge.

    Shapes: logits ``(N, K-1)``, logit k of P(y > k); target ``(N,)`` in 0 .. K-1; per-row ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("level",), head="sigmoid")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        levels(target, logits.shape[1])  # complains of labels out of range
        # sigmoid(a) - sigmoid(b) = sigmoid(a) sigmoid(-b) (1 - exp(b - a)); a is +inf below the
        # first level and b -inf above the last.
        down = F.pad(-F.softplus(-logits), (1, 0))
        up = F.pad(-F.softplus(logits), (0, 1))
        inner = _log_one_minus_exp(logits[:, :-1] - logits[:, 1:])
        ends = logits.shape[1] > 0  # one class has no levels, and nothing to say
        log_p = down + up + (F.pad(inner, (1, 1)) if ends else 0)
        return -log_p.gather(1, target[:, None]).squeeze(1)


def ordinal_softmax(logits: Tensor) -> Tensor:
    """Probabilities ``(..., K)`` of levels ``(..., K-1)``; negative where they are out of order."""
    cumulative = F.pad(F.pad(logits.sigmoid(), (1, 0), value=1.0), (0, 1))
    return cumulative[..., :-1] - cumulative[..., 1:]


def _log_one_minus_exp(gap: Tensor) -> Tensor:
    """``log(1 - exp(-gap))``, and its tangent below `GAP`."""
    safe = gap.clamp(min=GAP)
    value = torch.log(-torch.expm1(-safe))
    return value + (gap - safe) / math.expm1(GAP)
