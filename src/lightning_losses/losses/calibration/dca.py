# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DCA: the mean confidence of the batch against its accuracy."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.correctness import right_rows, sums


class DCA(nn.Module):
    """``|mean confidence - accuracy|`` of the batch.

    Liang et al., "Improved Trainable Calibration Method for Neural Networks on Medical Imaging
    Classification", arXiv 2009.04057. A term beside cross-entropy; the authors' weight is 10, that
    of MDCA's comparison 1. Accuracy has no gradient. Means are those of the batch of all ranks, and
    rows that are too sure can hide behind others that are not sure enough: see `mmce`.

    Shapes: confidence and prediction from the softmax statistics, target ``(N,)``; one number for
    the batch, a fraction.
    """

    scope = "batch"
    contract = Contract()

    def forward(
        self, confidence: Tensor, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        right, counts = right_rows(prediction, target, valid, confidence)
        gap, rows = sums(confidence - right, counts, counts=counts)
        mean: Tensor = (gap / rows.detach().clamp(min=1)).abs()
        return mean
