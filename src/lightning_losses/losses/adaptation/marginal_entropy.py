# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy of the mean prediction: a batch uses all classes."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import from_top


class MarginalEntropy(nn.Module):
    """``-H(mean of p)``, or ``log C - H(mean of p)``, over the rows of all ranks, in nats.

    Minimised it spreads predictions over the classes: the diversity term of SHOT and TFUP, and the
    mean-entropy-maximisation of SimGCD (arXiv 2211.11727), whose codes take the mean of each rank
    alone.

    Args:
        temperature: divides the logits, positive.
        offset: add log C, so that the value is 0 for an even use of classes and never negative.
        eps: is added to the mean probability within the logarithm; TFUP has 1e-6.

    Shapes: logits ``(N, C)``, other_logits of a second view ``(N, C)`` optional: the mean is over
    the predictions of both, as SimGCD has it; one number for the batch of all ranks, 0 without rows
    that count.

    Raises:
        ValueError: a temperature that is not positive.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logits", "other_logits"),))

    def __init__(self, temperature: float = 1.0, offset: bool = False, eps: float = 0.0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.offset, self.eps = temperature, offset, eps

    def forward(
        self, logits: Tensor, valid: Tensor | None = None, other_logits: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        if valid is None:
            valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        views = [logits] if other_logits is None else [logits, other_logits]
        p = torch.stack([(from_top(z) / self.temperature).softmax(1) for z in views]).mean(0)
        count = all_sum(valid.sum().to(p.dtype))
        mean = reduce_with_gradient(torch.where(valid[:, None], p, 0).sum(0)) / count.clamp(min=1)
        # The smallest positive number keeps the logarithm, and its slope times 0, finite.
        logs = (mean + self.eps).clamp(min=torch.finfo(mean.dtype).tiny).log()
        value = (mean * logs).sum()
        if self.offset:
            value = value + math.log(logits.shape[1])
        return torch.where(count > 0, value, mean.sum() * 0)
