# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""StableMax cross-entropy: a softmax without exponentials, against softmax collapse."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class StableMax(nn.Module):
    """``-log(s(z_y) / sum_j s(z_j))`` with s(x) = x + 1 for x >= 0 and 1 / (1 - x) below.

    Prieto et al., "Grokking at the Edge of Numerical Stability", arXiv 2501.04697. Computed as a
    log-sum-exp of log s, so float32 is enough (the authors use float64). Not invariant to shifts.

    Shapes: logits ``(N, C)`` whole, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # By clamp, whose slope at 0 is 1 as that of s; abs and sign would have 0 there.
        up, down = logits.clamp(min=0).log1p(), (-logits).clamp(min=0).log1p()
        log_s = torch.where(logits >= 0, up, -down)
        return log_s.logsumexp(1) - log_s.gather(1, target[:, None]).squeeze(1)
