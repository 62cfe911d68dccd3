# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""FLAT: unlearning by an f-divergence between what is to be said and what is to be forgotten."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient

Divergence = Literal[
    "total_variation",
    "kl",
    "reverse_kl",
    "pearson",
    "neyman",
    "jeffrey",
    "squared_hellinger",
    "jensen_shannon",
]

#: Of each divergence g*, of the probability of what is to be said, and f*(g*), of what is to be
#: forgotten.
PARTS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "total_variation": (lambda x: x.tanh() / 2, lambda x: x.tanh() / 2),
    "kl": (lambda x: x, lambda x: (x - 1).exp()),
    "reverse_kl": (lambda x: -x.exp(), lambda x: -1 - x),
    "pearson": (lambda x: x, lambda x: x.square() / 4 + x),
    # The root has no slope at 1, which a probability reaches by rounding.
    "neyman": (
        lambda x: 1 - x.exp(),
        lambda x: 2 - 2 * (1 - x).clamp(min=torch.finfo(x.dtype).eps).sqrt(),
    ),
    "jeffrey": (lambda x: x, lambda x: x + x.square() / 4 + x**3 / 16),
    "squared_hellinger": (lambda x: 1 - x.exp(), lambda x: (1 - x.exp()) / x.exp()),
    "jensen_shannon": (
        lambda x: math.log(2) - F.softplus(-x),
        lambda x: x + F.softplus(-x) - math.log(2),
    ),
}


class FLAT(nn.Module):
    """``f*(g*(p_f)) - g*(p_g)`` with mean probabilities of text to forget and of its replacement.

    Wang et al., "LLM Unlearning via Loss Adjustment with Only Forget Data", arXiv 2410.11143: p_f
    is the mean probability of the tokens of the answer to be forgotten, p_g that of the tokens of
    the template to be said instead; no retain set is needed. Means are over the rows that count, of
    all ranks; the authors' code counts padding as probability 0. One scalar for the batch:
    gradients of a text depend on the others of its batch.

    Args:
        divergence: one of total_variation, kl, reverse_kl, pearson, neyman, jeffrey,
            squared_hellinger, jensen_shannon.

    Shapes: the statistic log_prob of the tokens (``target``); forget ``(N,)`` bool, True for rows
    to forget and False for the template's. One number for the batch; 0 without rows that count.

    Raises:
        ValueError: an unknown divergence.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, divergence: Divergence = "total_variation") -> None:
        super().__init__()
        if divergence not in get_args(Divergence):
            raise ValueError(
                f"divergence must be one of {', '.join(get_args(Divergence))}, got {divergence!r}."
            )
        self.divergence = divergence

    def forward(self, log_prob: Tensor, forget: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        valid = torch.ones_like(forget, dtype=torch.bool) if valid is None else valid
        forget = forget.bool()
        sides = torch.stack([valid & ~forget, valid & forget])
        p = torch.where(valid, log_prob, 0).exp()
        sums = reduce_with_gradient(torch.where(sides, p, 0).sum(1))
        counts = all_sum(sides.sum(1).to(p.dtype))
        good, bad = sums / counts.clamp(min=1)
        of_good, of_bad = PARTS[self.divergence]
        value = of_bad(bad) - of_good(good)
        return torch.where(counts.sum() > 0, value, sums.sum() * 0)
