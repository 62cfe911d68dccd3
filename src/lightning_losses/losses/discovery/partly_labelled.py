# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses of batches that hold labelled and unlabelled rows: a target of -1 is not labelled."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import from_top, log_softmax

PARTLY_LABELLED = Contract(target=("label",), same_columns=(("logits", "other_logits"),))


class LabelledCrossEntropy(nn.Module):
    """Cross-entropy of ``softmax(z / T)`` on the labelled rows, the mean over these alone.

    Rows with target -1 are not labelled: they count for other terms and are 0 here. (A target of
    the objective's ignore_index, -100, counts nowhere.)

    Args:
        temperature: T, positive; category discovery has 0.1.

    Shapes: logits ``(N, C)``, target ``(N,)`` from -1 to C - 1, other_logits of a second view
    ``(N, C)`` optional: the mean of both; per-row values ``(N,)`` in nats.

    Raises:
        ValueError: on a CPU, a label that no column stands for.
    """

    scope = "rows"
    contract = PARTLY_LABELLED

    def __init__(self, temperature: float = 0.1) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature = temperature

    def forward(self, logits: Tensor, target: Tensor, other_logits: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``, 0 where the target is negative."""
        labelled = target >= 0
        own = torch.where(labelled, target, 0)[:, None]
        views = [logits] if other_logits is None else [logits, other_logits]
        log_p = [log_softmax(from_top(z) / self.temperature).gather(1, own)[:, 0] for z in views]
        return torch.where(labelled, -torch.stack(log_p).mean(0), 0)

    def row_divisors(self, target: Tensor | None) -> Tensor | None:
        """1 where a row is labelled: what the mean is over."""
        return None if target is None else (target >= 0).float()
