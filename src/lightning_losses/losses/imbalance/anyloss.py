# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""AnyLoss: trains on a score of the confusion matrix, made smooth by a steep sigmoid."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import reduce_with_gradient
from lightning_losses.losses.shared.one_vs_rest import keep, one_vs_rest

SCORES = ("accuracy", "f_beta", "balanced_accuracy", "gmean")


class AnyLoss(nn.Module):
    """``1 - score`` of decisions ``sigmoid(steepness (p - threshold))`` over the batch.

    Han, Moniz and Chawla, "AnyLoss: Transforming Classification Metrics into Loss Functions",
    arXiv 2405.14745. The score counts the rows of the batch, of all ranks. At steepness 73 a
    confident mistake has next to no gradient (1e-6 of the largest at p = 0.25): begin with
    cross-entropy, or with a smaller steepness.

    With more than two classes (not in the paper) each class is scored against the rest, and the
    mean is over the classes that can be scored: those with a positive in the batch, and for
    balanced accuracy and gmean with a negative too. If there is none the loss is 0.

    Args:
        score: ``accuracy``, ``f_beta``, ``balanced_accuracy`` or ``gmean`` (of sensitivity and
            specificity).
        beta: of f_beta; above 1 favours recall.
        steepness: 73 in the paper.
        threshold: of the decision, a probability.

    Shapes: binary logits ``(N,)`` or ``(N, 1)`` with target ``(N,)`` in {0, 1}, or ``(N, C)`` with
    indices ``(N,)``; one number for the batch.
    """

    scope = "batch"
    contract = Contract(target=("class", "binary"))

    def __init__(
        self,
        score: Literal["accuracy", "f_beta", "balanced_accuracy", "gmean"] = "f_beta",
        beta: float = 1.0,
        steepness: float = 73.0,
        threshold: float = 0.5,
    ) -> None:
        super().__init__()
        if score not in SCORES:
            raise ValueError(f"Unknown score {score!r}; write one of {', '.join(SCORES)}.")
        if not (beta > 0 and steepness > 0):
            raise ValueError(f"beta and steepness must be positive, got {beta} and {steepness}.")
        self.score, self.beta = score, beta
        self.steepness, self.threshold = steepness, threshold

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        log_p, _, t, _ = one_vs_rest(logits, target, valid, hard=True)
        margin = self.steepness * (log_p.exp() - self.threshold)
        yes, no = margin.sigmoid(), (-margin).sigmoid()
        cells = (yes * t, yes * (1 - t), no * t, no * (1 - t))
        sums = torch.stack([keep(cell, valid).sum(0) for cell in cells])
        tp, fp, fn, tn = reduce_with_gradient(sums)
        positives, negatives = tp + fn, tn + fp
        scored = positives.detach() > 0.5  # sums of soft decisions: 0 or at least 1, but rounded
        if self.score == "accuracy":
            scored = (positives + negatives).detach() > 0.5
            value = (tp + tn) / torch.where(scored, positives + negatives, 1.0)
        elif self.score == "f_beta":
            above = (1 + self.beta**2) * tp
            value = above / torch.where(scored, above + self.beta**2 * fn + fp, 1.0)
        else:
            scored = scored & (negatives.detach() > 0.5)
            recall = tp / torch.where(scored, positives, 1.0)
            specificity = tn / torch.where(scored, negatives, 1.0)
            value = (recall + specificity) / 2
            if self.score == "gmean":
                # The square root has an infinite slope at 0.
                value = (recall * specificity).clamp(min=torch.finfo(tp.dtype).tiny).sqrt()
        loss = torch.where(scored, 1 - value, 0.0 * tp)
        mean: Tensor = loss.sum() / scored.sum().clamp(min=1)
        return mean
