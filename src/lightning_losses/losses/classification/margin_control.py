# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Margin control: keeps predictions from running away to one class, for federated training."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import reduce_with_gradient


class MarginControl(nn.Module):
    """``log(1 + sum of p^2)`` over the classes of all rows, in nats; its weight is lambda.

    The regulariser of FedLD beside cross-entropy (Zeng et al., "Tackling Data Heterogeneity in
    Federated Learning via Loss Decomposition", arXiv 2408.12300), as in the authors' code: the
    squared Frobenius norm of the batch's probabilities under the logarithm. So its value grows with
    the logarithm of the batch size; ``per_sample`` does not depend on the batch.

    Args:
        per_sample: ``log(1 + sum of p^2)`` of each row instead, from log(1 + 1/C) for a uniform
            prediction to log 2 for a certain one. Then it is not the authors'.

    Shapes: one number from softmax statistics, or per-row values ``(N,)``.
    """

    contract = Contract(target=("none",))

    def __init__(self, per_sample: bool = False) -> None:
        super().__init__()
        self.per_sample = per_sample
        self.scope = "rows" if per_sample else "batch"

    def forward(self, collision: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``, or 0-dim."""
        if self.per_sample:
            return collision.log1p()
        counted = collision if valid is None else torch.where(valid, collision, 0.0)
        return reduce_with_gradient(counted.sum()).log1p()
