# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Correctness-aware loss: confidence up where the prediction is right, down where it is wrong."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.correctness import right_rows, sums


class CorrectnessAware(nn.Module):
    """The mean of ``(confidence - correct)^2`` over rows, right and wrong ones weighing the same.

    "Optimizing Calibration by Gaining Aware of Prediction Correctness", arXiv 2404.13016, whose
    code weighs a right row by 1 - accuracy of the batch and a wrong one by accuracy. There it
    trains a network that scales the logits of a finished classifier (the calibrator of this name);
    here it is a term of training, beside another loss. Where all rows are right, or all wrong,
    those weights are all 0 and the authors' loss NaN: rows weigh the same then. Weights and
    correctness have no gradient.

    Args:
        balanced: False for the plain mean over rows.

    Shapes: confidence and prediction from the softmax statistics, target ``(N,)``; one number for
    the batch of all ranks, in [0, 1].
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, balanced: bool = True) -> None:
        super().__init__()
        self.balanced = balanced

    def forward(
        self, confidence: Tensor, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        right, counts = right_rows(prediction, target, valid, confidence)
        square = (confidence - right).square()
        of_right, of_wrong, m, rows = sums(
            right * square, (1 - right) * square, right, counts, counts=counts
        )
        m, n = m.detach(), (rows - m).detach()
        mean: Tensor = (of_right + of_wrong) / (m + n).clamp(min=1)
        if not self.balanced:
            return mean
        both = (of_right / m.clamp(min=1) + of_wrong / n.clamp(min=1)) / 2
        return torch.where((m > 0) & (n > 0), both, mean)
