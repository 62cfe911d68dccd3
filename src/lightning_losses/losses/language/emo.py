# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""EMO: cross-entropy with the earth mover's distance between the prediction and the word."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST, unit
from lightning_losses.losses.shared.validation import check_classes, same_rows

Balance = Literal["likelihood", "distance"]


class EarthMover(nn.Module):
    """Cross-entropy and the mean distance of the predicted words to the right one, in balance.

    Ren et al., "EMO: Earth Mover Distance Optimization for Auto-Regressive Language Modeling",
    arXiv 2310.04691. The distance of two words is 1 minus the cosine of their embeddings, the rows
    of the head unless ``cost_embedding`` is passed. c is the distance over all words but the right
    one, with the gradient of all. Per row, sg without gradient:

    - ``likelihood`` (EMO-1): ``(CE + sg(CE / c) c) / 2``, the value of cross-entropy;
    - ``distance`` (EMO-2, the authors'): ``c + sg(c / CE) CE``, the value of 2 c. Its factor on the
      cross-entropy grows without bound where a word is predicted surely.

    Rows are done in chunks whose logits are made again in the backward pass, so that no more than a
    chunk of ``(N, V)`` exists.

    Args:
        balance: one of these.
        chunk: rows of one chunk, at least 1.

    Shapes: hidden ``(N, D)``, head_weight ``(V, D)``, target ``(N,)`` int64; optional head_bias
    ``(V,)`` and cost_embedding ``(V, E)``. Per-row values ``(N,)``. Embeddings as costs get no
    gradient; one of length 0 is at distance 1 from all.

    Raises:
        ValueError: an unknown balance, a chunk without rows, embeddings of another number of words.
    """

    scope = "rows"
    contract = Contract(same_columns=(("hidden", "head_weight"),))

    def __init__(self, balance: Balance = "distance", chunk: int = 512) -> None:
        super().__init__()
        if balance not in get_args(Balance):
            raise ValueError(
                f"balance must be one of {', '.join(get_args(Balance))}, got {balance!r}."
            )
        if chunk < 1:
            raise ValueError(f"chunk must be at least 1 row, got {chunk}; write 512.")
        self.balance, self.chunk = balance, chunk

    def forward(
        self,
        hidden: Tensor,
        head_weight: Tensor,
        target: Tensor,
        head_bias: Tensor | None = None,
        cost_embedding: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        same_rows(hidden=hidden, target=target)
        if head_weight.ndim != 2:
            raise ValueError(
                f"head_weight must be (V, D), a row a word, got {tuple(head_weight.shape)}."
            )
        same_rows(head_weight=head_weight, cost_embedding=cost_embedding)
        check_classes(target, len(head_weight))
        dtype = torch.promote_types(hidden.dtype, torch.float32)
        cost = head_weight if cost_embedding is None else cost_embedding
        cost = unit(cost.detach().to(dtype))
        hidden, head_weight = hidden.to(dtype), head_weight.to(dtype)
        if valid is not None:  # others may hold anything
            hidden = torch.where(valid[:, None], hidden, 0)
        bias = None if head_bias is None else head_bias.to(dtype)
        parts = []
        for start in range(0, max(len(hidden), 1), self.chunk):
            rows = slice(start, start + self.chunk)
            given = (hidden[rows], head_weight, bias, target[rows], cost)
            one = checkpoint(_values, *given, self.balance, use_reentrant=False)
            parts.append(one)
        return torch.cat(parts)


def _values(
    hidden: Tensor,
    head_weight: Tensor,
    bias: Tensor | None,
    target: Tensor,
    cost: Tensor,
    balance: Balance,
) -> Tensor:
    """Per-row values of one chunk."""
    logits = F.linear(hidden, head_weight, bias).clamp(min=LOWEST)
    log_p = logits.log_softmax(1)
    ce = -log_p.gather(1, target[:, None])[:, 0]
    p = log_p.exp()
    right = p.gather(1, target[:, None])[:, 0].detach()
    words = cost[target]
    near = (p @ cost * words).sum(1) - right * words.square().sum(1)
    c = 1 - near
    if balance == "likelihood":
        return (ce + (ce / (c + 1e-10)).detach() * c) / 2
    return c + (c / (ce + 1e-10)).detach() * ce
