# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Soft top-k: every relevant label belongs among the k with the largest scores."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.retrieval.multilabel_softmax import positives_of
from lightning_losses.losses.shared.rows_math import LOWEST

#: Halvings of the interval that holds the threshold: float64 has 52 bits.
HALVINGS = 60


class SoftTopK(nn.Module):
    """Mean over the positives of a row of ``-log sigmoid(sharpness (s + t))``.

    The threshold t makes the memberships sum to k: ``sum_j sigmoid(sharpness (s_j + t)) = k``, and
    its gradient is that of the equation, not of the search. Gupta et al., "Dual-Encoders for
    Extreme Multi-Label Classification", arXiv 2310.10636.

    Args:
        k: how many labels are in, below the number of labels; None: as many as are relevant.
        sharpness: how sharp the border is, positive.

    Shapes: logits ``(N, L)``, target ``(N, L)`` of 0 and 1; per-row values ``(N,)``. A row without
    a positive, or where every label is in, is 0.

    Raises:
        ValueError: k below 1 or not below L, sharpness that is not positive, a target that is not
            ``(N, L)``.
    """

    scope = "rows"
    contract = Contract(target=("binary",), head="none")

    def __init__(self, k: int | None = 5, sharpness: float = 2.0) -> None:
        super().__init__()
        if (k is not None and k < 1) or not sharpness > 0:
            raise ValueError(f"k and sharpness must be positive, got {k} and {sharpness}.")
        self.k, self.sharpness = k, sharpness

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        positive = positives_of(logits, target)
        labels = logits.shape[1]
        if self.k is not None and self.k >= labels > 1:
            raise ValueError(
                f"k must be below the number of labels, got k={self.k} and {labels} columns: with "
                "all labels in there is nothing to learn."
            )
        relevant = positive.sum(1)
        k = relevant if self.k is None else torch.full_like(relevant, self.k)
        # A row that is not asked anything gets a k that has a threshold.
        asked = (relevant > 0) & (k < labels)
        log_in = log_soft_topk(logits, torch.where(asked, k, 1), self.sharpness)
        mean = torch.where(positive, -log_in, 0).sum(1) / relevant.clamp(min=1)
        return torch.where(asked, mean, 0)


def log_soft_topk(scores: Tensor, k: Tensor, sharpness: float = 2.0) -> Tensor:
    """log of the soft membership in the top k, ``(N, L)``: the memberships of a row sum to k.

    Args:
        scores: ``(N, L)``.
        k: ``(N,)``, above 0 and below L.
        sharpness: how sharp the border is.
    """
    out: Tensor = _LogSoftTopK.apply(scores, k, sharpness)  # type: ignore[no-untyped-call]
    return out


class _LogSoftTopK(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, scores: Tensor, k: Tensor, sharpness: float) -> Tensor:
        # One label in, or all but one: the border is within 40 / sharpness of the scores.
        scores = scores - scores.amax(1, keepdim=True)
        margin = 40 / sharpness + math.log(max(2, scores.shape[1])) / sharpness
        low, high = torch.full_like(scores[:, 0], -margin), margin - scores.amin(1)
        inside = scores.argsort(1, descending=True).argsort(1) < k[:, None]  # the hard top k
        for _ in range(HALVINGS):
            middle = (low + high) / 2
            z = sharpness * (scores + middle[:, None])
            # Whether memberships sum to more than k, by logarithms of what the k lack and of what
            # the others have: beside k itself both may round away, and with them the border.
            lack = torch.where(inside, F.logsigmoid(-z), LOWEST).logsumexp(1)
            many = torch.where(inside, LOWEST, F.logsigmoid(z)).logsumexp(1) > lack
            low, high = torch.where(many, low, middle), torch.where(many, middle, high)
        z = sharpness * (scores + ((low + high) / 2)[:, None])
        ctx.save_for_backward(z)
        ctx.sharpness = sharpness
        return F.logsigmoid(z)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None, None]:
        (z,) = ctx.saved_tensors
        # dt/ds_j = -v_j / sum v, v = sigmoid(z) sigmoid(-z) the slope of the membership.
        share = (F.logsigmoid(z) + F.logsigmoid(-z)).softmax(1)
        upstream = grad * ctx.sharpness * (-z).sigmoid()
        return upstream - share * upstream.sum(1, keepdim=True), None, None
