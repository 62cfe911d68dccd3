# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mann-Whitney loss: every positive scores above every negative, which is the area under ROC."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, gather_with_gradient, reduce_with_gradient

#: Differences that are held at once, 16 MiB in float32; more are made twice.
LARGE = 2**22


class MannWhitney(nn.Module):
    """Mean of ``log(1 + exp(-(s_pos - s_neg) / T))`` over all pairs of a positive and a negative.

    "Optimizing What Matters: AUC-Driven Learning for Robust Neural Retrieval", arXiv 2510.00137:
    over ``log 2`` it bounds the area above the ROC curve. For binary classifiers pass logits and a
    target of 0 and 1; for retrieval the scores of all queries and documents, flattened, and where
    they are relevant. Pairs are over all ranks.

    Args:
        temperature: T, positive; the paper has 0.01 for cosines.
        negatives: ``mean``, for which the bound holds, or ``sum`` over negatives of each positive,
            the paper's equation 3.

    Shapes: logits ``(N,)`` or ``(N, 1)``, target ``(N,)`` of 0 and 1; one number for the batch of
    all ranks, 0 without a positive or without a negative.

    Raises:
        ValueError: a temperature that is not positive, an unknown reduction, several columns.
    """

    scope = "batch"
    contract = Contract(target=("binary",), head="sigmoid")

    def __init__(
        self, temperature: float = 1.0, negatives: Literal["mean", "sum"] = "mean"
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        if negatives not in ("mean", "sum"):
            raise ValueError(f"negatives must be mean or sum, got {negatives!r}.")
        self.temperature, self.negatives = temperature, negatives

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        if logits.ndim == 2 and logits.shape[1] != 1:
            raise ValueError(
                f"mann_whitney ranks one score a row, got logits {tuple(logits.shape)}: pass "
                "logits[:, 1] - logits[:, 0] for two classes, logits.flatten() and the flattened "
                "target for scores of many candidates."
            )
        scores = logits.reshape(-1) / self.temperature
        if valid is None:
            valid = torch.ones_like(scores, dtype=torch.bool)
        event = target.reshape(-1) > 0
        positive, negative = valid & event, gather_with_gradient(valid & ~event)
        columns = gather_with_gradient(scores)
        total = columns.sum() * 0  # a rank without rows takes part in the backward pass as well
        for start in range(0, len(scores), max(1, LARGE // max(1, len(columns)))):
            stop = start + max(1, LARGE // max(1, len(columns)))
            part = scores[start:stop], positive[start:stop], columns, negative
            whole = stop >= len(scores) and start == 0
            total = total + (
                _pairs(*part) if whole else checkpoint(_pairs, *part, use_reentrant=False)
            )
        pairs = all_sum(positive.sum().to(scores.dtype))
        if self.negatives == "mean":
            pairs = pairs * negative.sum()
        return reduce_with_gradient(total) / pairs.clamp(min=1)


def _pairs(scores: Tensor, positive: Tensor, columns: Tensor, negative: Tensor) -> Tensor:
    """Sum over pairs of some rows with all columns, 0-dim."""
    losses = F.softplus(columns[None, :] - scores[:, None])
    return torch.where(positive[:, None] & negative[None, :], losses, 0).sum()
