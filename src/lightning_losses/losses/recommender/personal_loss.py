# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PLD: of a user's likely positives, train on the one whose loss says that it is no noise."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract


class PersonalLoss(nn.Module):
    """``sum_k w_k softplus(n_k - p_k)``, ``w = softmax(-loss / temperature)`` without gradient.

    A user's own losses tell clean positives from noisy ones better than those of all users. Zhang
    et al., "Personalized Denoising Implicit Feedback for Robust Recommender System", arXiv
    2502.00348, is a sampler: of k candidate pairs of a user it draws one with chance w and steps on
    its BPR loss. This is the mean of that draw: the same gradient in expectation, with less noise.

    The authors begin with plain BPR, for before the scores mean anything the weights prefer
    whatever is easy: that is a very large temperature.

    Args:
        temperature: small prefers the pair of smallest loss, large weighs pairs alike; 0.1 in the
            authors' code, with 5 candidates.

    Shapes: logits_positive ``(N, k)`` scores of a user's positives, logits_negative ``(N, k)`` of
    the negative drawn for each. Per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature

    def forward(self, logits_positive: Tensor, logits_negative: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        losses = pair_losses(logits_positive, logits_negative)
        return (self.weights(losses) * losses).sum(1)

    def weights(self, losses: Tensor) -> Tensor:
        """Chance of each candidate ``(N, k)`` from the pairs' losses, without gradient."""
        return (-losses.detach() / self.temperature).softmax(1)


def pair_losses(logits_positive: Tensor, logits_negative: Tensor) -> Tensor:
    """BPR of each pair ``(N, k)``, in nats. Raises ValueError unless the shapes are the same."""
    if logits_positive.shape != logits_negative.shape or logits_positive.ndim != 2:
        raise ValueError(
            "personal_loss needs logits_positive and logits_negative (N, k), a negative for each "
            f"positive; got {tuple(logits_positive.shape)} and {tuple(logits_negative.shape)}."
        )
    return F.softplus(logits_negative - logits_positive)
