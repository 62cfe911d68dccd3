# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Normalised losses: a loss over its sum over all labels, which tolerates label noise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.shared.rows_math import log_softmax


class NormalizedCompSum(nn.Module):
    """``l(y) / sum_k l(k)`` with l of `CompSum`; between 0 and 1.

    tau = 1 is normalised cross-entropy (NCE), 1 + q normalised GCE, 2 normalised MAE, which is
    normalised reverse cross-entropy (NRCE), ``(1 - p_y) / (C - 1)``: constant factors cancel. Ma et
    al., "Normalized Loss Functions for Deep Learning with Noisy Labels", arXiv 2006.13554. The
    authors' code has (C - 1) / 4 for 1 / (4 (C - 1)) in NRCE; this is the paper's.

    Args:
        tau: see `CompSum`.
        num_classes: C; given, tau 1 and 2 run on softmax statistics, without whole logits.

    Shapes: logits ``(N, C)`` whole, unless as above; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, tau: float = 1.0, num_classes: int | None = None) -> None:
        super().__init__()
        self.loss, self.num_classes = CompSum(tau), num_classes
        self.needs: tuple[str, ...] = ("logits",)
        if num_classes is not None and tau in (1.0, 2.0):
            self.needs = ("mean_log_prob",) if tau == 1 else ()

    def forward(
        self,
        log_prob: Tensor,
        mean_log_prob: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if "logits" in self.needs:
            assert logits is not None
            total = self.loss(log_softmax(logits)).sum(1)
        else:
            assert self.num_classes is not None
            if self.needs:
                assert mean_log_prob is not None
                total = -self.num_classes * mean_log_prob
            else:
                total = torch.full_like(log_prob, self.num_classes - 1)
        # 0 only where there is one class: the others cannot all be certain.
        value: Tensor = self.loss(log_prob) / total.clamp(min=torch.finfo(total.dtype).eps)
        return value
