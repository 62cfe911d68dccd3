# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Bootstrapping: the target mixed with what the model itself predicts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class Bootstrapping(nn.Module):
    """``beta CE + (1 - beta) H(p)``, or with the predicted class, ``- (1 - beta) log max p``.

    Cross-entropy to the target ``beta e_y + (1 - beta) p``. Reed et al., "Training Deep Neural
    Networks on Noisy Labels with Bootstrapping", arXiv 1412.6596. Small beta lets the model agree
    with itself: the entropy falls whatever the labels say.

    Args:
        beta: share of the label, in [0, 1]; the paper has 0.95 soft and 0.8 hard.
        hard: mix in the predicted class instead of p.
        detach: no gradient through the p of the target, as many ports have it. What remains is
            exactly beta times cross-entropy: the gradient of ``-sum p_fixed log p`` is 0 at p.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, beta: float = 0.95, hard: bool = False, detach: bool = False) -> None:
        super().__init__()
        if not 0 <= beta <= 1:
            raise ValueError(f"beta must be in [0, 1], got {beta}.")
        self.beta, self.hard, self.detach = beta, hard, detach
        self.needs = ("confidence",) if hard else ("entropy",)

    def forward(
        self, log_prob: Tensor, entropy: Tensor | None = None, confidence: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if self.hard:
            assert confidence is not None
            # Rows that do not count hold 0; elsewhere it is at least 1 / C.
            own = -confidence.clamp(min=torch.finfo(confidence.dtype).tiny).log()
        else:
            assert entropy is not None
            own = entropy.detach() if self.detach else entropy
        return -self.beta * log_prob + (1 - self.beta) * own
