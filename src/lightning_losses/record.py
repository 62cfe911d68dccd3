# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`LossRecord`: what one evaluation of an objective leaves behind for logs and monitors."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor

from lightning_losses.contract import HeadKind
from lightning_losses.softmax import SoftmaxStats


@dataclass(frozen=True)
class LossRecord:
    """One step's result. Everything but ``total`` is without graph.

    On several ranks ``total`` and ``terms`` hold the value of the global batch on every rank.

    Examples:
        >>> objective = build_objective(["ce", "entropy_bonus"])
        >>> record = objective(logits=torch.zeros(3, 4), target=torch.tensor([0, 1, -100]))
        >>> record.num_valid.item(), record.num_rows
        (2, 3)
        >>> {name: round(value.item(), 3) for name, value in record.terms.items()}
        {'ce': 1.386, 'entropy_bonus': -1.386}
    """

    total: Tensor
    """The weighted sum of terms, 0-dim (or ``(N,)`` under ``reduction="none"``), with graph."""
    terms: dict[str, Tensor]
    """Raw (unweighted) value of each term, 0-dim."""
    weights: dict[str, Tensor]
    """Weight of each term at this step, 0-dim float64 on the CPU."""
    num_valid: Tensor
    """Number of rows that count on this rank, 0-dim int64."""
    num_rows: int
    """Number of rows, counted or not."""
    stats: SoftmaxStats
    """Softmax statistics ``(N,)`` that terms or monitors asked for."""
    captured: dict[str, Any] = field(default_factory=dict)
    """Named tensors that monitors asked for, by reference; those with rows flattened."""
    numerators: dict[str, Tensor] = field(default_factory=dict)
    """Of each term, 0-dim: what is added up over batches and ranks, and once all are in divided by
    what ``divisors`` add up to. Without gradient (validation), and where the caller has passed a
    ``normalizer``; else nobody adds up batches, and both are empty."""
    divisors: dict[str, Tensor] = field(default_factory=dict)
    """Rows that count, class weights, sample weights, questions asked: 0-dim. 0 where there are
    none, and under ``reduction="sum"``, where nothing is to be divided."""
    diagnostics: dict[str, Tensor] = field(default_factory=dict)
    """What losses tell beside their value, by ``<term>/<name>``: the mean over the rows that count,
    0-dim; see `lightning_losses.contract`. ``numerators`` and ``divisors`` have them too."""

    head: HeadKind = "softmax"
    """What the terms make of the logits: ``softmax`` over columns, one ``sigmoid`` a column, or
    ``none``. Without softmax monitors find no softmax statistics here, but for ``prediction``."""

    @property
    def means(self) -> dict[str, Tensor]:
        """Each term as a mean over what it counts, whatever ``normalizer`` was passed; 0-dim."""
        terms = dict(self.terms)
        for name in terms.keys() & self.divisors.keys():
            divisor = self.divisors[name]
            terms[name] = self.numerators[name] / torch.where(divisor == 0, 1, divisor)
        return terms

    def detach(self) -> LossRecord:
        """The same record without the graph of ``total``."""
        return replace(self, total=self.total.detach())
