# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tri-BCE: trains two branches and their mean, the weaker branch more."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.validation import check_binary


class TriBCE(nn.Module):
    """``L + relu(L_d - L) L_d + relu(L_s - L) L_s``, L the cross-entropy of the mean score.

    Li et al., "FCN: Fusing Exponential and Linear Cross Network for Click-Through Rate Prediction",
    arXiv 2407.13349. A branch that does worse than the mean of both is trained more.

    Args:
        detach_weights: take the two differences as weights, as the paper says; the authors' code
            differentiates them too. Same value, another gradient.

    Shapes: logits_deep, logits_shallow ``(N,)``, target ``(N,)`` in [0, 1]; one number.
    """

    scope = "batch"
    contract = Contract(target=("binary",), head="sigmoid")

    def __init__(self, detach_weights: bool = False) -> None:
        super().__init__()
        self.detach_weights = detach_weights

    def forward(
        self,
        logits_deep: Tensor,
        logits_shallow: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim. Raises ValueError for targets outside [0, 1], on a CPU."""
        if not logits_deep.shape == logits_shallow.shape == target.shape or target.ndim != 1:
            raise ValueError(
                "tri_bce needs logits_deep, logits_shallow and target of one shape (N,), got "
                f"{tuple(logits_deep.shape)}, {tuple(logits_shallow.shape)} and "
                f"{tuple(target.shape)}: write squeeze(1) for (N, 1)."
            )
        if valid is None:
            valid = torch.ones_like(target, dtype=torch.bool)
        target = torch.where(valid, target, 0)
        check_binary(target)
        t = target.to(logits_deep.dtype)
        scores = torch.stack([(logits_deep + logits_shallow) / 2, logits_deep, logits_shallow])
        losses = F.binary_cross_entropy_with_logits(scores, t.expand_as(scores), reduction="none")
        total = reduce_with_gradient(torch.where(valid, losses, 0.0).sum(1))
        mean, deep, shallow = total / all_sum(valid.sum()).clamp(min=1)
        weights = [F.relu(branch - mean) for branch in (deep, shallow)]
        if self.detach_weights:
            weights = [weight.detach() for weight in weights]
        loss: Tensor = mean + weights[0] * deep + weights[1] * shallow
        return loss
