# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Logit adjustment: trains logits that are to be read without the class prior."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.class_counts import checked_counts, require_counts
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.rows_math import log_softmax
from lightning_losses.losses.shared.validation import check_length


class LogitAdjustment(nn.Module):
    """``-log softmax(z + tau log prior)_y``; at test time the plain argmax of z.

    Menon et al., "Long-tail learning via logit adjustment", arXiv 2007.07314; with tau = 1 the
    balanced softmax of Ren et al., arXiv 2007.10740. The shifted denominator is no softmax
    statistic of z, so this needs whole logits; with hidden states and a head, use `ce` and pass
    ``head_bias=bias + tau * log_prior``, which is the same.

    Args:
        class_counts: ``(C,)`` training examples of each class, at least 1.
        tau: strength; 0 is cross-entropy.

    Shapes: logits ``(N, C)``, target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract()

    def __init__(
        self, class_counts: Sequence[float] | Tensor | None = None, tau: float = 1.0
    ) -> None:
        super().__init__()
        self.shift: tuple[float, ...] = ()
        if class_counts is not None:
            counts = checked_counts(class_counts)
            self.shift = tuple((tau * (counts / counts.sum()).log()).tolist())

    def forward(self, logits: Tensor, target: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        shift = require_counts(self.shift, "logit_adjustment")
        check_length("class_counts", len(shift), logits.shape[1])
        log_p = log_softmax(logits + constant(shift, logits))
        return -log_p.gather(1, target[:, None]).squeeze(1)
