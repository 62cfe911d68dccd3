# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""WEAT: TRADES under weights from the energy of the clean input."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import energies, kl_divergence, log_softmax


class Weat(nn.Module):
    """``-log p_y + beta KL(p || p_adv)``, or ``-log p_adv_y + ...``, to be weighted by row.

    Mirza et al., "Shedding More Light on Robust Classifiers under the lens of Energy-based Models",
    arXiv 2407.06315. The weights are the row weighting `lightning_losses.weighting.EnergyWeight`;
    without it this is TRADES. Gradient through both distributions.

    Args:
        beta: weight of the agreement; 6 in the paper, 7 where ``adversarial``.
        adversarial: the cross-entropy is that of the perturbed input (WEAT-adv).

    Shapes: logits and logits_adv ``(N, C)``, target ``(N,)``; per-row values ``(N,)``.
    Diagnostics: mean ``energy`` and ``energy_adv`` of the two, in nats.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "logits_adv"),))

    def __init__(self, beta: float = 6.0, adversarial: bool = False) -> None:
        super().__init__()
        self.beta, self.adversarial = beta, adversarial

    def forward(self, logits: Tensor, logits_adv: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p, log_q = log_softmax(logits), log_softmax(logits_adv)
        self.diagnostics = energies(logits, logits_adv)
        learned = log_q if self.adversarial else log_p
        nll = -learned.gather(1, target[:, None]).squeeze(1)
        return nll + self.beta * kl_divergence(log_p, log_q)
