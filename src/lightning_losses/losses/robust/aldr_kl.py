# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""ALDR-KL: LDR-KL with a temperature for each sample that follows how noisy its label looks."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.robust.ldr_kl import (
    check_normalize,
    kl_robust,
    margins,
    normalized,
)
from lightning_losses.losses.shared.sample_state import SampleState


class AdaptiveLDRKL(nn.Module):
    """`LDRKL` at lambda_i, minus ``alpha log C (lambda_i - lambda_0)^2 / (2 lambda_0)``.

    ``lambda_i = lambda_0 (1 - KL(P || uniform) / (alpha log C))`` with P the prediction at the
    sample's last lambda: a sample that the model is sure of gets a smaller one. No gradient passes
    lambda_i. Zhu et al., arXiv 2112.14869; the state is a `SampleState`, which says when it is
    written and what ranks do. Outside training every sample has lambda_0 before the update.

    Args:
        num_samples: size of the training set, above every sample_index; 4 bytes each.
        margin: at least 0, in units of g.
        temperature: lambda_0, positive.
        alpha: above 1 lambda_i stays well above 0.
        normalize: see `LDRKL`; the authors take ``absolute``, for CIFAR-100 ``softplus``.

    Shapes: logits ``(N, C)`` whole and finite, target and sample_index ``(N,)``; per-row values.
    """

    scope = "batch"  # no row function: it writes state, on all ranks together
    contract = Contract(head="none")

    def __init__(
        self,
        num_samples: int = 1_000_000,
        margin: float = 0.1,
        temperature: float = 10.0,
        alpha: float = 2.0,
        normalize: Literal["softplus", "absolute"] | None = "absolute",
    ) -> None:
        super().__init__()
        if not (temperature > 0 and alpha > 0 and margin >= 0):
            raise ValueError(
                "temperature and alpha must be positive and margin at least 0, got "
                f"{temperature}, {alpha}, {margin}."
            )
        check_normalize(normalize)
        self.margin, self.temperature, self.alpha = margin, temperature, alpha
        self.normalize = normalize
        self.lambdas = SampleState(num_samples, temperature)

    def forward(
        self, logits: Tensor, target: Tensor, sample_index: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if valid is None:
            valid = torch.ones_like(target, dtype=torch.bool)
        g = normalized(logits, self.normalize)
        training = self.training and torch.is_grad_enabled()
        if training:
            before = self.lambdas.read(sample_index, valid, like=g)
        else:
            before = torch.full_like(g[:, 0], self.temperature)
        now = self._update(g.detach(), before)
        if training:
            self.lambdas.write(sample_index, now, valid)
        loss = kl_robust(margins(g, target, self.margin), now)
        pull = self.alpha * math.log(g.shape[1]) / (2 * self.temperature)
        return loss - pull * (now - self.temperature).square()

    def _update(self, g: Tensor, before: Tensor) -> Tensor:
        """The next lambda ``(N,)``."""
        classes = g.shape[1]
        if classes == 1:
            return before
        p = torch.softmax(g / before[:, None], dim=1) + 1e-5
        p = p / p.sum(1, keepdim=True)
        divergence = (p * (classes * p).log()).sum(1) / math.log(classes)
        # With alpha up to 1 a certain prediction would take it to 0 or below.
        return self.temperature * (1 - divergence / self.alpha).clamp(min=1e-6)
