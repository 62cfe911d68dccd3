# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Distance covariance: predictions that tell nothing about sensitive attributes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.rows_math import log_softmax


class DistanceCovariance(nn.Module):
    """Unbiased squared distance covariance between predictions and attributes over the batch.

    0 in the mean where they are independent, in any way and not only linearly; negative by chance.
    A small batch is noisy, not biased; below 4 rows that count the value is 0. Szekely and Rizzo,
    "Partial distance correlation", arXiv 1310.2926; as a fairness penalty for several attributes:
    Lee et al., arXiv 2509.08163 (CCdCov, JdCov).

    Args:
        joint: False takes all attributes as one vector (CCdCov), so their scales matter:
            standardise numbers, one-hot categories. True takes each column by itself and also sees
            dependence among them (JdCov).
        c: weight of lower-order dependence in JdCov, positive; unused otherwise.
        probabilities: of predictions, by softmax or sigmoid; False compares logits, which must
            then be finite.

    Shapes: logits ``(N,)`` or ``(N, C)``, sensitive ``(N,)`` or ``(N, A)``; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")  # sigmoid of one column, softmax of several

    def __init__(self, joint: bool = False, c: float = 1.0, probabilities: bool = True) -> None:
        super().__init__()
        if not c > 0:
            raise ValueError(f"c must be positive, got {c}.")
        self.joint, self.c, self.probabilities = joint, c, probabilities

    def forward(self, logits: Tensor, sensitive: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        if valid is None:
            valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        x, s = (z[:, None] if z.ndim == 1 else z for z in (logits, sensitive.to(logits.dtype)))
        x, s = (torch.where(valid[:, None], z, 0.0) for z in (x, s))
        if self.probabilities:
            x = x.sigmoid() if x.shape[1] == 1 else log_softmax(x).exp()
        x, s, counts = (gather_with_gradient(z) for z in (x, s, valid))
        pairs = counts[:, None] & counts[None, :]
        n = counts.sum().to(x.dtype)
        parts = [x, *torch.split(s, 1, dim=1)] if self.joint else [x, s]
        centred = [_centred(part, pairs, n) for part in parts]
        c = self.c if self.joint else 0.0
        product = torch.ones_like(centred[0])
        for u in centred:
            product = product * (u + c)
        product = torch.where(pairs, product - c ** len(parts), 0.0)
        enough = n >= 4
        return torch.where(enough, product.sum() / torch.where(enough, n * (n - 3), 1.0), 0.0)


def _centred(x: Tensor, pairs: Tensor, n: Tensor) -> Tensor:
    """U-centred distances ``(N, N)`` of rows, minus their usual sign: every row sums to 0."""
    squared = (x[:, None] - x[None, :]).square().sum(-1)
    apart = pairs & (squared > 0)  # the square root has an infinite slope at 0
    distance = torch.where(apart, torch.where(apart, squared, 1.0).sqrt(), 0.0)
    row = distance.sum(1)
    few, fewer = (n - 2).clamp(min=1), (n - 1).clamp(min=1)
    u = (row[:, None] + row[None, :]) / few - distance - row.sum() / (few * fewer)
    itself = torch.eye(len(x), dtype=torch.bool, device=x.device)
    return torch.where(pairs & ~itself, u, 0.0)
