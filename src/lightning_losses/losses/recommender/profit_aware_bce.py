# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Profit-aware ranking: puts the rows of a list in the order of their profits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient


class ProfitAwareBCE(nn.Module):
    """Sum of ``log10(1 + profit_i - profit_j) softplus(z_j - z_i)`` over pairs, over the rows kept.

    Of each list the ``top_k`` most profitable rows are kept; the mean is over the lists whose loss
    is not 0. Li et al., "Learn to Rank Risky Investors", arXiv 2509.16616; called GraphBasedLoss in
    their code, whose PACrossEntropy is something else. Labels are not used.

    Args:
        top_k: rows kept of a list; 6 in the authors' code (20 in its LightGBM twin, whose
            logarithm is natural).

    Shapes: logits ``(N,)`` scores, profit ``(N,)``, list_id ``(N,)`` or none for one; a number.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, top_k: int = 6) -> None:
        super().__init__()
        if top_k < 2:
            raise ValueError(
                f"top_k must be at least 2, for there are no pairs of one; got {top_k}."
            )
        self.top_k = top_k

    def forward(
        self,
        logits: Tensor,
        profit: Tensor,
        list_id: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        z = logits if logits.ndim == 1 else logits.mean(1)
        if valid is None:
            valid = torch.ones_like(z, dtype=torch.bool)
        ids = torch.zeros_like(z, dtype=torch.long) if list_id is None else list_id
        profit = torch.where(valid, profit, 0.0).to(z.dtype)
        z, profit, ids, counts = (gather_with_gradient(x) for x in (z, profit, ids, valid))
        together = (ids[:, None] == ids[None, :]) & counts[:, None] & counts[None, :]
        order = torch.arange(len(z), device=z.device)
        ahead = profit[None, :] > profit[:, None]
        ahead = ahead | ((profit[None, :] == profit[:, None]) & (order[None, :] < order[:, None]))
        rank = (together & ahead).sum(1)
        kept = counts & (rank < self.top_k)
        pairs = together & ahead.t() & kept[:, None] & kept[None, :]  # row before column
        price = torch.log10(1 + (profit[:, None] - profit[None, :]).clamp(min=0))
        losses = torch.where(pairs, price * F.softplus(z[None, :] - z[:, None]), 0.0)
        size = (together & kept[None, :]).sum(1).clamp(min=1)
        rows = losses.sum(1) / size
        whole = together.to(z.dtype) @ rows.detach()
        lists = (counts & (rank == 0) & (whole > 0)).sum()
        return rows.sum() / lists.clamp(min=1)
