# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Class-balanced loss: classes weighted by how many different examples they effectively have."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_losses.losses.classification.focal import Focal
from lightning_losses.losses.shared.class_counts import checked_counts, require_counts
from lightning_losses.losses.shared.class_weights import ClassWeights


class ClassBalanced(Focal):
    """``-w_y (1 - p_y)^gamma log p_y``, w_c proportional to ``(1 - beta) / (1 - beta^n_c)``.

    ``(1 - beta^n) / (1 - beta)`` is the effective number of n examples that overlap. The weights
    are scaled to sum to C; the mean is over rows, not over weights. Cui et al., "Class-Balanced
    Loss Based on Effective Number of Samples", arXiv 1901.05555.

    Args:
        class_counts: ``(C,)`` training examples of each class, at least 1.
        beta: in [0, 1); 0 is unweighted, towards 1 inverse frequency. 0.9, 0.99, 0.999 and 0.9999
            in the paper.
        gamma: focusing exponent; 0 is cross-entropy.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    def __init__(
        self,
        class_counts: Sequence[float] | Tensor | None = None,
        beta: float = 0.999,
        gamma: float = 0.0,
    ) -> None:
        if not 0 <= beta < 1:
            raise ValueError(f"beta must be in [0, 1), got {beta}.")
        super().__init__(gamma)
        self.class_weight: tuple[float, ...] = ()
        if class_counts is not None:
            # By expm1: 1 - beta^n cancels for rare classes and beta near 1.
            counts = checked_counts(class_counts)
            base = math.log(beta) if beta else -math.inf
            weight = 1 / -torch.expm1(counts * base)
            self.class_weight = tuple((weight * (len(weight) / weight.sum())).tolist())
        self._weights = ClassWeights(self.class_weight, "class_counts")
        self.needs = ("target",)

    def forward(
        self, log_prob: Tensor, target: Tensor | None = None, logits: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        assert target is not None
        require_counts(self.class_weight, "class_balanced")
        self._weights.check(logits)  # one too many would change the weights of all others
        return self._weights.of(target, log_prob) * super().forward(log_prob)
