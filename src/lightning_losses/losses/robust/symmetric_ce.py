# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Symmetric cross-entropy: cross-entropy and its reverse, plain or normalised."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.robust.normalized import NormalizedCompSum


class SymmetricCrossEntropy(nn.Module):
    """``alpha CE + beta RCE`` with the reverse cross-entropy ``RCE = -log_zero (1 - p_y)``.

    RCE is ``-sum_k p_k log t_k`` with log 0 in the target cut at ``log_zero``: a multiple of MAE.
    Wang et al., "Symmetric Cross Entropy for Robust Learning with Noisy Labels", arXiv 1908.06112.
    Normalised, ``alpha NCE + beta RCE`` is an active-passive loss of Ma et al., arXiv 2006.13554.

    Args:
        alpha: weight of cross-entropy, at least 0.
        beta: weight of its reverse, at least 0.
        log_zero: negative; the papers write -4, their codes have log(1e-4).
        normalized: divide cross-entropy by its sum over all labels.
        num_classes: with ``normalized``, as in `NormalizedCompSum`.

    Shapes: per-row values ``(N,)`` from softmax statistics; normalised as `NormalizedCompSum`.
    """

    scope = "rows"
    contract = Contract()

    def __init__(
        self,
        alpha: float = 0.1,
        beta: float = 1.0,
        log_zero: float = -9.210340371976184,
        normalized: bool = False,
        num_classes: int | None = None,
    ) -> None:
        super().__init__()
        if not (alpha >= 0 and beta >= 0 and log_zero < 0):
            raise ValueError(
                "alpha and beta must be at least 0 and log_zero negative, got "
                f"{alpha}, {beta}, {log_zero}."
            )
        self.alpha, self.beta, self.log_zero = alpha, beta, log_zero
        self.active = NormalizedCompSum(1.0, num_classes) if normalized else None
        self.needs: tuple[str, ...] = () if self.active is None else self.active.needs

    def forward(
        self,
        log_prob: Tensor,
        mean_log_prob: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        # expm1: 1 - p cancels where the prediction is certain.
        loss: Tensor = self.beta * self.log_zero * torch.expm1(log_prob)
        if self.active is not None:
            loss = loss + self.alpha * self.active(log_prob, mean_log_prob, logits)
        elif self.alpha:  # 0 times inf is NaN
            loss = loss - self.alpha * log_prob
        return loss
