# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Rows of one response count together: the reductions of GRPO and Dr. GRPO."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_sum
from lightning_losses.losses.shared.sequences import sequences

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

    Examples:
        >>> valid, sequence_id = torch.ones(4, dtype=torch.bool), torch.tensor([0, 0, 0, 1])
        >>> SequenceWeight("sequence_mean")(torch.zeros(4), valid, sequence_id)
        tensor([0.6667, 0.6667, 0.6667, 2.0000])
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
        found = sequences(sequence_id, valid)
        both = torch.stack([counts.sum(), found.there.sum().to(counts.dtype)])
        rows, number = all_sum(both)
        if self.aggregation == "sequence_mean":
            weights = rows / number.clamp(min=1) / found.size[found.slot].clamp(min=1)
        elif self.aggregation == "sequence_sum":
            weights = rows / number.clamp(min=1) / self.length
        else:
            weights = rows / self.length
        weighed: Tensor = counts * weights
        return weighed
