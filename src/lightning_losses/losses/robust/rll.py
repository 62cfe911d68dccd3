# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Robust log loss: logarithms of shifted probabilities, the same sum for every label."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import log_softmax


class RobustLogLoss(nn.Module):
    """``log((a + 1) / a) - log(a + p_y) + mean_{k != y} log(a + p_k)``, at least 0.

    Summed over all labels it is constant, which makes it robust to symmetric label noise. Kumar and
    Sastry, "Robust Loss Functions for Learning Multi-class Classifiers", SMC 2018.

    Args:
        a: shift of the probabilities, positive.
        released_code: ``log(sum_k (exp(1[k != y] f_k - sum_j f_j) + a)) / (C - 1)`` for the mean
            and no constant, as the code of the LDR paper has it: probably a slip, to compare.

    Shapes: logits ``(N, C)`` whole, with ``released_code`` finite too, target ``(N,)``; per-row
    values ``(N,)``.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, a: float = 1.0, released_code: bool = False) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}.")
        self.a, self.released_code = a, released_code

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        y, others = target[:, None], max(logits.shape[1] - 1, 1)
        shifted = (log_softmax(logits).exp() + self.a).log()
        own = shifted.gather(1, y).squeeze(1)
        if not self.released_code:
            constant = math.log1p(1 / self.a) if logits.shape[1] > 1 else math.log1p(self.a)
            return constant - own + (shifted.sum(1) - own) / others
        exponent = logits.scatter(1, y, 0.0) - logits.sum(1, keepdim=True)
        # log of (sum of exp) + C a, in the log domain: the sum of exp overflows.
        total = torch.logaddexp(
            exponent.logsumexp(1), exponent.new_full((), math.log(self.a * logits.shape[1]))
        )
        return -own + total / others
