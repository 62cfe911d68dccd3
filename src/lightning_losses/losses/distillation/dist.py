# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DIST: match how classes correlate within a row, and rows within a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import from_top


class Dist(nn.Module):
    """``beta (1 - mean row correlation) + gamma (1 - mean column correlation)`` of probabilities.

    Pearson's correlation of teacher and student: of each row over the classes, and of each class
    over the rows of all ranks. Huang et al., "Knowledge Distillation from A Stronger Teacher",
    arXiv 2205.10536. A row or column without spread has no direction: its correlation is 0 and it
    gets no gradient (the authors' code gives it one of about 1e6).

    Args:
        beta: weight of the rows.
        gamma: weight of the columns.
        temperature: divides both logits first.
        eps: is added to the denominator of a correlation.

    Shapes: logits and teacher_logits ``(N, C)``; one number for the batch of all ranks. A batch of
    one row keeps the constant ``gamma``. The teacher gets no gradient.

    Raises:
        ValueError: a temperature that is not positive.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logits", "teacher_logits"),))

    def __init__(
        self,
        beta: float = 1.0,
        gamma: float = 1.0,
        temperature: float = 1.0,
        eps: float = 1e-8,
    ) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.beta, self.gamma, self.temperature, self.eps = beta, gamma, temperature, eps

    def forward(
        self, logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim; 0 without rows that count."""
        if valid is None:
            valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        s = (from_top(logits) / self.temperature).softmax(1)
        t = (from_top(teacher_logits.detach()) / self.temperature).softmax(1)
        count = all_sum(valid.sum().to(s.dtype))
        each = count.clamp(min=1)

        s_row, t_row = s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
        rows = self._correlation(*(x.sum(1) for x in _products(s_row, t_row)))
        rows = reduce_with_gradient(torch.where(valid, rows, 0).sum()) / each

        kept = valid[:, None]
        mean = reduce_with_gradient(torch.where(kept, torch.stack([s, t]), 0).sum(1)) / each
        s_col, t_col = torch.where(kept, s - mean[0], 0), torch.where(kept, t - mean[1], 0)
        sums = torch.stack([x.sum(0) for x in _products(s_col, t_col)])
        columns = self._correlation(*reduce_with_gradient(sums)).mean()
        columns = torch.where(count > 1, columns, columns.detach() * 0)  # one row has no column

        loss = self.beta * (1 - rows) + self.gamma * (1 - columns)
        return torch.where(count > 0, loss, s.sum() * 0)

    def _correlation(self, both: Tensor, s: Tensor, t: Tensor) -> Tensor:
        # Rounding leaves a square of about 1e-15 where there is no spread.
        spread = (s > 1e-12) & (t > 1e-12)
        lengths = torch.where(spread, s, 1).sqrt() * torch.where(spread, t, 1).sqrt()
        return torch.where(spread, both / (lengths + self.eps), 0)


def _products(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return s * t, s.square(), t.square()
