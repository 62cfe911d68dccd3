# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dual focal loss: focal loss that looks at the runner-up as well."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class DualFocal(nn.Module):
    """``-(1 - p_y + p_j)^gamma log p_y``, p_j the largest probability that is below p_y.

    Tao, Dong and Xu, "Dual Focal Loss for Calibration", arXiv 2305.13665: focal loss is too little
    confident where the runner-up is far behind; here the gap to it counts. As in the authors' code
    classes that tie with the target are no runner-up, p_j is 0 where every class is at or above the
    target, and p_j has gradient (shared where several classes tie for it).

    Args:
        gamma: focusing exponent, at least 0; 0 is cross-entropy. The authors have 5.

    Shapes: logits ``(N, C)``, target ``(N,)``; per-row values ``(N,)``, nats.

    Raises:
        ValueError: a negative gamma.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, gamma: float = 5.0) -> None:
        super().__init__()
        if not gamma >= 0:
            raise ValueError(f"gamma must be at least 0, got {gamma}; write 5.0.")
        self.gamma = gamma

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p = logits.log_softmax(-1)
        chosen = log_p.gather(1, target[:, None])
        below = log_p.masked_fill(log_p >= chosen, -torch.inf).amax(1)
        log_py = chosen.squeeze(1)
        # 1 - p_y without cancellation; never 0, where a power below 1 has an infinite slope.
        far = (below.exp() - torch.expm1(log_py)).clamp(min=torch.finfo(log_p.dtype).tiny)
        return -far.pow(self.gamma) * log_py
