# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two views of a sample are predicted alike: KL of one prediction from the other."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import from_top, kl_divergence, log_softmax


class DualViewKL(nn.Module):
    """``KL(p || q)`` of each row, p of ``logits`` and q of ``other_logits``, in nats.

    One direction, both with gradient: the dual-view term of LegoGCD (arXiv 2501.05272).

    Args:
        temperature: divides both, positive.
        twice: take the softmax of the probabilities again, as the authors' code does, which nearly
            evens them out.

    Shapes: logits and other_logits ``(N, C)``; per-row values ``(N,)``.

    Raises:
        ValueError: a temperature that is not positive.
    """

    scope = "rows"
    contract = Contract(target=("none",), same_columns=(("logits", "other_logits"),))

    def __init__(self, temperature: float = 0.1, twice: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}; write 0.1.")
        self.temperature, self.twice = temperature, twice

    def forward(self, logits: Tensor, other_logits: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        log_p, log_q = (log_softmax(from_top(z) / self.temperature) for z in (logits, other_logits))
        if not self.twice:
            return kl_divergence(log_p, log_q)
        p, q = log_p.exp(), log_q.exp()
        return (p * (log_softmax(p) - log_softmax(q))).sum(1)
