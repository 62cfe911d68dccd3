# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Happy's soft entropy: old and new classes are used alike, and so is each within its side."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import LOWEST, from_top


class SoftEntropy(nn.Module):
    """How unevenly the mean prediction uses two sets of classes, and the classes within either.

    Ma et al., "Happy: A Debiased Learning Framework for Continual Generalized Category Discovery",
    arXiv 2410.06535. Of the mean p of the batch, in nats and each at least 0: ``between * (log 2 -
    H(mass of old, mass of new)) + old * (log C_old - H(old)) + new * (log C_new - H(new))``, the
    last two of the shares within a side.

    Args:
        num_old: the first columns are the old classes.
        between: weight of the first part.
        old: weight of the second.
        new: weight of the third.
        temperature: divides the logits, positive.

    Shapes: logits ``(N, C)`` with C above num_old, other_logits of a second view ``(N, C)``
    optional, of both of which it then is; one number for the batch of all ranks, 0 without rows
    that count.

    Raises:
        ValueError: a temperature that is not positive, or no class on one of the sides.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logits", "other_logits"),))

    def __init__(
        self,
        num_old: int,
        between: float = 2.0,
        old: float = 1.0,
        new: float = 1.0,
        temperature: float = 0.1,
    ) -> None:
        super().__init__()
        if num_old < 1 or not temperature > 0:
            raise ValueError(
                "num_old must be at least 1 and temperature positive, got "
                f"{num_old} and {temperature}."
            )
        self.num_old, self.temperature = num_old, temperature
        self.weights = (between, old, new)

    def forward(
        self, logits: Tensor, other_logits: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        if logits.shape[1] <= self.num_old:
            raise ValueError(
                f"num_old must be below the {logits.shape[1]} columns of logits, got "
                f"{self.num_old}: new classes have columns too."
            )
        if valid is None:
            valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        views = [logits] if other_logits is None else [logits, other_logits]
        scores = (from_top(z).clamp(min=LOWEST) / self.temperature for z in views)
        p = torch.stack([z.softmax(1) for z in scores]).mean(0)
        count = all_sum(valid.sum().to(p.dtype))
        mean = reduce_with_gradient(torch.where(valid[:, None], p, 0).sum(0)) / count.clamp(min=1)
        sides = mean[: self.num_old], mean[self.num_old :]
        masses = torch.stack([side.sum() for side in sides])
        parts = [_unevenness(masses), *map(_unevenness, sides)]
        value = torch.stack([w * x for w, x in zip(self.weights, parts, strict=True)]).sum()
        return torch.where(count > 0, value, mean.sum() * 0)


def _unevenness(mass: Tensor) -> Tensor:
    """``log K - H`` of the shares of ``(K,)`` masses; 0 if there is no mass."""
    tiny = torch.finfo(mass.dtype).tiny
    total = mass.sum()
    share = mass / torch.where(total > 0, total, 1)
    return torch.where(
        total > 0, math.log(len(mass)) + (share * share.clamp(min=tiny).log()).sum(), 0
    )
