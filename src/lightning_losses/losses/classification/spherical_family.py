# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Taylor and spherical softmax: normalisations without exponentials."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import unit


class TaylorSoftmax(nn.Module):
    """``-log(s(f_y) / sum_j s(f_j))`` with ``s(f) = 1 + f + f^2 / 2``, the start of exp's series.

    de Brebisson and Vincent, "An Exploration of Softmax Alternatives Belonging to the Spherical
    Loss Family", arXiv 1511.05042. s is at least 1/2 and grows again below f = -1.

    Shapes: logits ``(N, C)`` whole and finite, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        # 2 s = (f + 1)^2 + 1, whose root is a hypotenuse: no square that overflows.
        return _nll(2 * torch.hypot(logits + 1, torch.ones_like(logits)).log(), target)


class SphericalSoftmax(nn.Module):
    """``-log(s(f_y) / sum_j s(f_j))`` with ``s(f) = f^2 + eps``.

    Same paper, arXiv 1511.05042. f and -f have the same probability.

    Args:
        eps: positive, so that no probability is 0.
        normalize: scale each row of logits to length 1 before.

    Shapes: logits ``(N, C)`` whole and finite, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(self, eps: float = 1e-4, normalize: bool = False) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.eps, self.normalize = eps, normalize

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        f = unit(logits) if self.normalize else logits
        return _nll(2 * torch.hypot(f, torch.full_like(f, self.eps**0.5)).log(), target)


def _nll(log_s: Tensor, target: Tensor) -> Tensor:
    return log_s.logsumexp(1) - log_s.gather(1, target[:, None]).squeeze(1)
