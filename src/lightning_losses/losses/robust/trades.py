# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""TRADES: accuracy on clean input, agreement on perturbed input."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import energies, kl_divergence, log_softmax


class Trades(nn.Module):
    """``-log p_y + beta KL(p || p_adv)``, gradient through both distributions.

    Zhang et al., "Theoretically Principled Trade-off between Robustness and Accuracy",
    arXiv 1901.08573. ``logits_adv`` come from a provider (`lightning_losses.providers.PGD`).

    Args:
        beta: weight of the agreement; 6 in the paper's experiments, 1 in its code's signature.

    Shapes: logits and logits_adv ``(N, C)``, target ``(N,)``; per-row values ``(N,)``.
    Diagnostics: mean ``energy`` and ``energy_adv`` of the two, in nats.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "logits_adv"),))

    def __init__(self, beta: float = 6.0) -> None:
        super().__init__()
        self.beta = beta

    def forward(self, logits: Tensor, logits_adv: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        self.diagnostics = energies(logits, logits_adv)
        log_p = log_softmax(logits)
        nll = -log_p.gather(1, target[:, None]).squeeze(1)
        return nll + self.beta * kl_divergence(log_p, log_softmax(logits_adv))
