# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A reward that counts less where the model that gives it contradicts itself."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import kl_divergence, log_softmax


class UncertaintyReward(nn.Module):
    """``exp(-U) (-log p_y) + penalty U``, ``U = KL(q || p)``, of two judgements of one condition.

    Zhang et al., "Ctrl-U: Robust Conditional Image Generation via Uncertainty-aware Reward
    Modeling", arXiv 2410.11236. A frozen model (of segmentation, say) reads the condition back from
    two samples that were generated for it at different noise: p from one, whose agreement with the
    condition is the reward, q from the other. Where they differ the reward is not to be trusted.
    Gradient flows through both, and makes them agree.

    The authors add 0.1 times the first part and once the second, for segmentation: a weight of 0.1
    and a penalty of 10. For conditions of real numbers they take the absolute difference instead.

    Args:
        penalty: of U, at least 0.

    Shapes: logits and other_logits ``(N, C)``, one row a pixel, target ``(N,)`` the condition;
    per-row values ``(N,)``, nats. Diagnostics: ``uncertainty``, U of a row.

    Raises:
        ValueError: a negative penalty.
    """

    scope = "rows"
    contract = Contract(same_columns=(("logits", "other_logits"),))
    diagnostics: dict[str, Tensor]

    def __init__(self, penalty: float = 10.0) -> None:
        super().__init__()
        if not penalty >= 0:
            raise ValueError(f"penalty must be at least 0, got {penalty}; write 10.0.")
        self.penalty = penalty

    def forward(self, logits: Tensor, other_logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p, log_q = log_softmax(logits), log_softmax(other_logits)
        uncertainty = kl_divergence(log_q, log_p)
        self.diagnostics = {"uncertainty": uncertainty.detach()}
        nll = -log_p.gather(1, target[:, None])[:, 0]
        return nll * (-uncertainty).exp() + self.penalty * uncertainty
