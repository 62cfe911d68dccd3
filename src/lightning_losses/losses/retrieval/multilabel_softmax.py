# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax losses for rows with several relevant labels: decoupled, and summed over positives."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST, from_top


class MultilabelSoftmax(nn.Module):
    """``log(exp s_p + sum_others exp s) - s_p`` of each positive p of a row.

    Gupta et al., "Dual-Encoders for Extreme Multi-Label Classification", arXiv 2310.10636: the
    ordinary softmax makes positives compete with each other, the decoupled one leaves the other
    positives out. Scores of unit vectors are divided by a temperature (0.05 there) by the caller.

    Args:
        others: ``negatives`` (decoupled) or ``all`` other labels (the ordinary softmax).
        positives: ``mean`` or ``sum`` over the positives of a row.

    Shapes: logits ``(N, L)``, target ``(N, L)`` of 0 and 1; per-row values ``(N,)``, nats. A row
    without a positive is 0.

    Raises:
        ValueError: an unknown convention, a target that is not ``(N, L)``.
    """

    scope = "rows"
    contract = Contract(target=("binary",), head="softmax")

    def __init__(
        self,
        others: Literal["negatives", "all"] = "negatives",
        positives: Literal["mean", "sum"] = "mean",
    ) -> None:
        super().__init__()
        if others not in ("negatives", "all") or positives not in ("mean", "sum"):
            raise ValueError(
                "others must be negatives or all, and positives mean or sum, got "
                f"{others!r} and {positives!r}."
            )
        self.others, self.positives = others, positives

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        positive = positives_of(logits, target)
        s = from_top(logits)
        if self.others == "all":
            each = s.logsumexp(1, keepdim=True) - s
        else:
            rest = torch.where(positive, LOWEST, s).logsumexp(1, keepdim=True)
            each = torch.logaddexp(s, rest) - s
        total = torch.where(positive, each, 0).sum(1)
        return total / positive.sum(1).clamp(min=1) if self.positives == "mean" else total


def positives_of(logits: Tensor, target: Tensor) -> Tensor:
    """Which labels are relevant, ``(N, L)`` bool.

    Raises:
        ValueError: if the target is not of the logits' shape.
    """
    if logits.shape != target.shape:
        raise ValueError(
            f"target must say of every label whether it is relevant, {tuple(logits.shape)} as the "
            f"logits, got {tuple(target.shape)}: write F.one_hot(target, L) for one label a row."
        )
    return target > 0
