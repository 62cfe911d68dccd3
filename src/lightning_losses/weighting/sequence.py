# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of one response count together: the reductions of GRPO and Dr. GRPO."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_sum

Aggregation = Literal["sequence_mean", "sequence_sum", "sum"]


class SequenceWeight(nn.Module):
    """Turns the mean over rows into one over sequences, by the rows' weights.

    With the objective's mean over rows, the term becomes

    - ``sequence_mean``: the mean over sequences of their means over rows (GRPO, arXiv 2402.03300);
      short responses then weigh more a row;
    - ``sequence_sum``: the mean over sequences of their sums, divided by ``length`` (Dr. GRPO,
      arXiv 2503.20783, with the largest length of a response);
    - ``sum``: the sum over all rows, divided by ``length``.

    Sequences without a row that counts are left out. A sequence must be whole on one rank;
    different ranks may use the same ids.

    Args:
        aggregation: one of these.
        length: what sums are divided by, positive.

    Raises:
        ValueError: another word, or a length that is not positive.
    """

    def __init__(self, aggregation: Aggregation = "sequence_mean", length: float = 1.0) -> None:
        super().__init__()
        if aggregation not in get_args(Aggregation):
            raise ValueError(
                f"Unknown aggregation {aggregation!r}; write one of "
                f"{', '.join(get_args(Aggregation))}, or no row weighting for the mean over rows."
            )
        if not length > 0:
            raise ValueError(f"length must be positive, got {length}; write 1.")
        self.aggregation, self.length = aggregation, length

    def forward(self, losses: Tensor, valid: Tensor, sequence_id: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        counts = valid.to(losses.dtype)
        size, begins = sizes(sequence_id, valid)
        rows, sequences = all_sum(torch.stack([counts.sum(), begins.sum().to(counts.dtype)]))
        if self.aggregation == "sequence_mean":
            weights = rows / sequences.clamp(min=1) / size.to(counts.dtype).clamp(min=1)
        elif self.aggregation == "sequence_sum":
            weights = rows / sequences.clamp(min=1) / self.length
        else:
            weights = rows / self.length
        weighed: Tensor = counts * weights
        return weighed


def sizes(sequence_id: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
    """How many valid rows a row's sequence has ``(N,)``, and one True for each that has any.

    By sorting, as counting what is there would wait for the device. The second is in sorted order.
    """
    n = len(sequence_id)
    # Valid rows first, and within them by sequence.
    by_id = sequence_id.argsort(stable=True)
    order = by_id[(~valid[by_id]).to(torch.int8).argsort(stable=True)]
    ids, counts = sequence_id[order], valid[order]
    new = torch.ones_like(counts)
    new[1:] = ids[1:] != ids[:-1]
    new = new & counts
    place = (new.cumsum(0) - 1).clamp(min=0)
    size = torch.zeros(n, dtype=torch.int64, device=place.device).index_add(
        0, place, counts.to(torch.int64)
    )
    return torch.empty_like(place).index_copy(0, order, size[place]), new
