# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DIST: match how classes correlate within a row, and rows within a class."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import from_top
from lightning_losses.softmax import Chunks


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
    contract = Contract(
        target=("none",), same_columns=(("logits", "teacher_logits"),), by_chunks=True
    )

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
        given = {} if valid is None else {"valid": valid}
        return self.of_chunks(Chunks.whole(logits=logits, teacher_logits=teacher_logits, **given))

    def of_chunks(self, chunks: Chunks) -> Tensor:
        """The same of rows that come in chunks: all that it takes are sums over rows."""
        with torch.no_grad():
            sums = chunks.total(self._plain_sums)
        count, *mean = _parts(all_sum(sums), 2)
        each = count.clamp(min=1)
        near = [total / each for total in mean]

        def moments(logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None) -> Tensor:
            return self._moments(near, logits, teacher_logits, valid)

        rows, *columns = _parts(reduce_with_gradient(chunks.total(moments)), 5)
        both, s_square, t_square, s_off, t_off = columns
        # Deviations were taken from constants: what those are off by is 0, but has a derivative.
        both, s_square, t_square = (
            square - a * b / each
            for square, a, b in (
                (both, s_off, t_off),
                (s_square, s_off, s_off),
                (t_square, t_off, t_off),
            )
        )
        column = self._correlation(both, s_square, t_square).mean()
        column = torch.where(count > 1, column, column.detach() * 0)  # one row has no column

        loss = self.beta * (1 - rows / each) + self.gamma * (1 - column)
        return torch.where(count > 0, loss, rows * 0).squeeze()

    def _probabilities(
        self, logits: Tensor, teacher_logits: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Of student and teacher ``(n, C)``, and which rows count."""
        if valid is None:
            valid = torch.ones(len(logits), dtype=torch.bool, device=logits.device)
        s = (from_top(logits) / self.temperature).softmax(1)
        t = (from_top(teacher_logits.detach()) / self.temperature).softmax(1)
        return s, t, valid

    def _plain_sums(
        self, logits: Tensor, teacher_logits: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """How many rows, and the sums of both by class, ``(1 + 2 C,)``."""
        s, t, valid = self._probabilities(logits, teacher_logits, valid)
        kept = valid[:, None]
        sums = (torch.where(kept, x, 0).sum(0) for x in (s, t))
        return torch.cat([valid.sum()[None].to(s.dtype), *sums])

    def _moments(
        self, near: list[Tensor], logits: Tensor, teacher_logits: Tensor, valid: Tensor | None
    ) -> Tensor:
        """The sum of the rows' correlations; products, squares and sums of deviations by class."""
        s, t, valid = self._probabilities(logits, teacher_logits, valid)
        s_row, t_row = s - s.mean(1, keepdim=True), t - t.mean(1, keepdim=True)
        rows = self._correlation(*(x.sum(1) for x in _products(s_row, t_row)))
        kept = valid[:, None]
        s, t = torch.where(kept, s - near[0], 0), torch.where(kept, t - near[1], 0)
        columns = (x.sum(0) for x in (*_products(s, t), s, t))
        return torch.cat([torch.where(valid, rows, 0).sum()[None], *columns])

    def _correlation(self, both: Tensor, s: Tensor, t: Tensor) -> Tensor:
        # Rounding leaves a square of about 1e-15 where there is no spread.
        spread = (s > 1e-12) & (t > 1e-12)
        lengths = torch.where(spread, s, 1).sqrt() * torch.where(spread, t, 1).sqrt()
        return torch.where(spread, both / (lengths + self.eps), 0)


def _products(s: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return s * t, s.square(), t.square()


def _parts(sums: Tensor, classes: int) -> tuple[Tensor, ...]:
    """The first number ``(1,)``, and what follows by class, so many times ``(C,)``."""
    return sums[:1], *sums[1:].reshape(classes, (len(sums) - 1) // classes)
