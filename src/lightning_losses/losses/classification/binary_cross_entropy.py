# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy on logits, and what every binary loss makes of its target."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST
from lightning_losses.losses.shared.validation import check_binary, check_classes


class BinaryCrossEntropy(nn.Module):
    """``-t log s(z) - (1 - t) log(1 - s(z))`` with s the sigmoid, in nats; mean over the labels.

    Args:
        positive_weight: multiplies the first summand, at least 0; above 1 it favours recall.

    Shapes: logits ``(N,)`` with target ``(N,)`` in [0, 1], int or float; or several labels,
    ``(N, L)`` with ``(N, L)``, or with class indices ``(N,)``, each label then a class against the
    rest. Per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("binary", "class"), head="sigmoid")
    class_target = False

    def __init__(self, positive_weight: float = 1.0) -> None:
        super().__init__()
        if not positive_weight >= 0:
            raise ValueError(f"positive_weight must be at least 0, got {positive_weight}.")
        self.positive_weight = positive_weight

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError for targets outside [0, 1], on a CPU."""
        z, t = binary_rows(logits, target, valid)
        # By logsigmoid: log(1 + e^z) - t z would cancel where the label is certain.
        loss = -self.positive_weight * t * F.logsigmoid(z) - (1 - t) * F.logsigmoid(-z)
        return loss.mean(1)


def binary_rows(
    logits: Tensor, target: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Scores and targets ``(N, L)`` of the same floating dtype, L = 1 for binary logits ``(N,)``.

    Targets of rows that do not count are 0.

    Raises:
        ValueError: shapes that do not go together; targets outside [0, 1], on a CPU.
    """
    z = logits[:, None] if logits.ndim == 1 else logits
    if valid is not None:
        target = torch.where(valid if target.ndim == 1 else valid[:, None], target, 0)
    if target.ndim == 1 and z.shape[1] == 1:
        target = target[:, None]
    elif target.ndim == 1 and not target.is_floating_point():
        check_classes(target, z.shape[1])
        # By scatter, which refuses an index out of range; a comparison would pass over it.
        target = torch.zeros_like(z).scatter(1, target[:, None], 1.0)
    if target.shape != z.shape:
        raise ValueError(
            f"A binary loss got logits {tuple(logits.shape)} and {target.dtype} target "
            f"{tuple(target.shape)}: pass logits (N,) with target (N,), or (N, L) with (N, L)."
        )
    check_binary(target)
    return z.clamp(min=LOWEST), target.to(z.dtype)  # 0 times -inf would be NaN
