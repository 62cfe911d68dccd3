# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Evidential deep learning: a Dirichlet over class probabilities instead of one of them."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.constant import exact

Kind = Literal["mse", "log", "digamma"]
Evidence = Literal["relu", "softplus", "exp"]


class Evidential(nn.Module):
    """The expected error under Dirichlet(alpha), alpha = evidence(logits) + 1, S = sum alpha.

    Sensoy, Kaplan and Kandemir, "Evidential Deep Learning to Quantify Classification Uncertainty",
    arXiv 1806.01768. Their three losses: ``mse`` the expected squared error
    ``sum_k (t_k - alpha_k / S)^2 + alpha_k (S - alpha_k) / (S^2 (S + 1))``, ``log`` the negative
    log of the expected probability ``log S - log alpha_y``, ``digamma`` the expected
    cross-entropy ``psi(S) - psi(alpha_y)``. Plus ``kl_weight`` times the divergence of what
    evidence there is for other classes from none. The probability of class k is alpha_k / S, and
    C / S the vacuity, how little is known; the softmax means nothing.

    Args:
        kind: of the loss.
        kl_weight: of the divergence, at least 0; the paper has 1.
        anneal_steps: optimizer steps in which kl_weight grows from 0; the paper has 10 epochs.
        evidence: of a logit. relu, the paper's, is flat below 0: a row that has no evidence for any
            class gets no gradient.

    Shapes: logits ``(N, C)``, target ``(N,)``; per-row values ``(N,)``.

    Raises:
        ValueError: an unknown kind or evidence, a negative weight or number of steps.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(
        self,
        kind: Kind = "mse",
        kl_weight: float = 1.0,
        anneal_steps: int = 0,
        evidence: Evidence = "relu",
    ) -> None:
        super().__init__()
        if kind not in get_args(Kind) or evidence not in get_args(Evidence):
            raise ValueError(
                f"kind must be one of {', '.join(get_args(Kind))} and evidence one of "
                f"{', '.join(get_args(Evidence))}, got {kind!r} and {evidence!r}."
            )
        if not (kl_weight >= 0 and anneal_steps >= 0):
            raise ValueError(
                f"kl_weight and anneal_steps must be at least 0, got {kl_weight}, {anneal_steps}."
            )
        self.kind, self.evidence = kind, evidence
        self.kl_weight, self.anneal_steps = kl_weight, anneal_steps
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """The weight of the divergence at this step."""
        grown = min(1.0, step / self.anneal_steps) if self.anneal_steps else 1.0
        self.kl_now = self.kl_weight * grown

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        alpha = _evidence(logits, self.evidence) + 1
        total = alpha.sum(1)
        own = alpha.gather(1, target[:, None]).squeeze(1)
        if self.kind == "log":
            loss: Tensor = total.log() - own.log()
        elif self.kind == "digamma":
            loss = torch.digamma(total) - torch.digamma(own)
        else:
            p = alpha / total[:, None]
            hit = torch.zeros_like(p).scatter(1, target[:, None], 1.0)
            variance = p * (1 - p) / (total[:, None] + 1)
            loss = ((hit - p).square() + variance).sum(1)
        if not self.kl_now:
            return loss
        misleading = alpha.scatter(1, target[:, None], 1.0)
        return loss + self.kl_now * _divergence_from_nothing(misleading).to(loss.dtype)


def _evidence(logits: Tensor, kind: Evidence) -> Tensor:
    if kind == "exp":
        return logits.exp()
    return F.relu(logits) if kind == "relu" else F.softplus(logits)


def _divergence_from_nothing(alpha: Tensor) -> Tensor:
    """``KL(Dirichlet(alpha) || Dirichlet(1, ..., 1))`` of each row ``(N, C)``, nats."""
    # Differences of numbers of order alpha log alpha: in float32 a million would leave no digits.
    alpha = alpha.to(exact(alpha.device))
    total = alpha.sum(1)
    constant = torch.lgamma(total) - torch.lgamma(torch.full_like(total, alpha.shape[1]))
    slopes = torch.digamma(alpha) - torch.digamma(total)[:, None]
    return constant - torch.lgamma(alpha).sum(1) + ((alpha - 1) * slopes).sum(1)
