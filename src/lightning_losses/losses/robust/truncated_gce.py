# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Truncated GCE: generalised cross-entropy that drops rows which the model gives up on."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.shared.sample_state import SampleState


class TruncatedGCE(nn.Module):
    """``w_i ((1 - p_y^q) / q - (1 - k^q) / q)`` with w_i = 1 while p_y > k, else 0; at most 0.

    Zhang and Sabuncu, arXiv 1805.07836. The authors refresh w every tenth epoch in a pass of its
    own; here each visit of a row decides its w at the next, which costs nothing. The state is a
    `SampleState`. Outside training w is that of the prediction itself.

    Args:
        num_samples: size of the training set, above every sample_index; 4 bytes each.
        q: exponent in (0, 1].
        k: probability below which a row is dropped, in (0, 1).
        start: optimizer step from which rows may be dropped.

    Shapes: per-row values ``(N,)`` from softmax statistics and sample_index ``(N,)``.
    """

    scope = "batch"  # no row function: it writes state, on all ranks together
    contract = Contract()

    def __init__(
        self, num_samples: int = 1_000_000, q: float = 0.7, k: float = 0.5, start: int = 0
    ) -> None:
        super().__init__()
        if not (0 < q <= 1 and 0 < k < 1):
            raise ValueError(f"q must be in (0, 1] and k in (0, 1), got {q} and {k}.")
        self.gce, self.log_k, self.start = CompSum(1 + q), math.log(k), start
        self.offset = -math.expm1(q * self.log_k) / q
        self.kept = SampleState(num_samples, 1.0)
        self._started = start <= 0

    def set_step(self, step: int) -> None:
        """Drop rows from step ``start`` on."""
        self._started = step >= self.start

    def forward(
        self, log_prob: Tensor, sample_index: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if valid is None:
            valid = torch.ones_like(log_prob, dtype=torch.bool)
        keep = (log_prob.detach() > self.log_k).to(log_prob.dtype)
        if self.training and torch.is_grad_enabled():
            weight = self.kept.read(sample_index, valid, like=log_prob)
            self.kept.write(sample_index, keep if self._started else torch.ones_like(keep), valid)
        else:
            weight = keep if self._started else torch.ones_like(keep)
        loss: Tensor = weight * (self.gce(log_prob) - self.offset)
        return loss
