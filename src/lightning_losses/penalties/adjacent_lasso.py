# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PRESTO's penalty: neighbouring levels of an ordinal model share their weights, unless needed."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class AdjacentLasso(nn.Module):
    """``|w_1|_1 + sum_k |w_k - w_(k-1)|_1`` over the rows of weight matrices.

    Faletto and Bien, "Predicting Rare Events by Shrinking Towards Proportional Odds", arXiv
    2305.18700. Beside `ordinal_nll` on a linear head with K - 1 outputs it shrinks towards one
    slope for all levels, the proportional odds model; biases are free.

    Args:
        pattern: regular expression that the name of the head's weight must contain.

    Shapes: reads ``module.named_parameters()``, matrices ``(K-1, D)``; one number.

    Raises:
        ValueError: no weight matrix matches, in `forward`.

    Examples:
        >>> head = torch.nn.Linear(2, 3)
        >>> head.weight.data = torch.ones(3, 2)  # equal levels: only the first is paid for
        >>> AdjacentLasso()(head).item()
        2.0
    """

    scope = "parameters"
    contract = Contract(target=("none",), head="none")

    def __init__(self, pattern: str = r"weight$") -> None:
        super().__init__()
        self.pattern = pattern

    def forward(self, module: nn.Module) -> Tensor:
        """The penalty, 0-dim. Raises ValueError if no matrix matches."""
        found = [
            p for n, p in module.named_parameters() if p.ndim == 2 and re.search(self.pattern, n)
        ]
        if not found:
            raise ValueError(
                f"presto found no weight matrix matching {self.pattern!r} in "
                f"{type(module).__name__}: write loss.presto.pattern=<name of the ordinal head>."
            )
        return torch.stack([_penalty(p) for p in found]).sum()


def _penalty(weight: Tensor) -> Tensor:
    w = weight.to(torch.promote_types(weight.dtype, torch.float32))
    return w[:1].abs().sum() + w.diff(dim=0).abs().sum()
