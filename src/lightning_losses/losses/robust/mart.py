# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""MART: adversarial training that looks harder at rows misclassified without perturbation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import energies, kl_divergence, log_softmax


class Mart(nn.Module):
    """``-log q_y - log(1.0001 - max_{k != y} q_k) + beta KL(p || q) (1 - p_y)``, q under attack.

    Wang et al., "Improving Adversarial Robustness Requires Revisiting Misclassified Examples",
    ICLR 2020. Gradient through both distributions. ``logits_adv`` come from a provider
    (`lightning_losses.providers.PGD`, attack ``ce``). The shift 1.0001 is the authors' and bounds
    the second summand; their 1e-12 under the logarithms of KL is not needed in the log domain.

    Args:
        beta: weight of the agreement; 6 in the authors' code, 5 in the paper.

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
        y = target[:, None]
        log_p, log_q = log_softmax(logits), log_softmax(logits_adv)
        runner_up = log_q.exp().scatter(1, y, 0.0).amax(1)
        boosted = -log_q.gather(1, y).squeeze(1) - (1.0001 - runner_up + 1e-12).log()
        miss = 1e-7 - torch.expm1(log_p.gather(1, y).squeeze(1))  # the authors' 1.0000001 - p
        return boosted + self.beta * kl_divergence(log_p, log_q) * miss
