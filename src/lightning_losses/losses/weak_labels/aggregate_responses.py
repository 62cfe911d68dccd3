# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Learning from aggregate responses: only the mean of each bag is known."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.bags import bags


class AggregateResponses(nn.Module):
    """``(1 - rho) (bag mean - y)^2 + rho mean (z - y)^2``, mean over bags.

    Javanmard et al., "Learning from Aggregate responses: Instance Level versus Bag Level Loss
    Functions", arXiv 2401.11081. The two differ by the variance of predictions within a bag, so rho
    is the weight of that variance. A bag may be spread over ranks, not over steps.

    Args:
        rho: in [0, 1]; 0 fits bags, 1 fits every row to its bag's mean.

    Shapes: logits ``(N,)`` (real predictions; write ``inputs`` for another name), bag_id ``(N,)``,
    bag_target ``(N,)``, the mean response of the row's bag; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, rho: float = 0.0) -> None:
        super().__init__()
        if not 0 <= rho <= 1:
            raise ValueError(f"rho must be in [0, 1], got {rho}.")
        self.rho = rho

    def forward(
        self, logits: Tensor, bag_id: Tensor, bag_target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        z = logits[:, None] if logits.ndim == 1 else logits
        y = bag_target if valid is None else torch.where(valid, bag_target, 0.0)
        found = bags(z, bag_id, valid)
        y = gather_with_gradient(y.to(z.dtype))[:, None]
        bag, instance = ((x - y).square().mean(1) for x in (found.mean, found.values))
        return (found.share * ((1 - self.rho) * bag + self.rho * instance)).sum()
