# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which unlabelled rows a model adapts to: the reliable ones (EATA), the known ones (OSTTA)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.distributed import all_sum


class ReliableRows(nn.Module):
    """Weights ``exp(margin - H)`` for rows whose entropy H is below the margin, 0 for the others.

    EATA, Niu et al., "Efficient Test-Time Model Adaptation without Forgetting", arXiv 2204.02610,
    without its filter of similar rows. The term is the mean over the rows that are kept, of all
    ranks; 0 if none is.

    Args:
        margin: entropy in nats; 0.4 log C in the paper, here that of C = 1000.

    Raises:
        ValueError: a margin that is not positive.

    Examples:
        >>> valid, entropy = torch.tensor([True, True]), torch.tensor([0.5, 2.0])
        >>> ReliableRows(margin=1.0)(torch.zeros(2), valid, entropy)
        tensor([3.2974, 0.0000])
    """

    def __init__(self, margin: float = 0.4 * math.log(1000)) -> None:
        super().__init__()
        if not margin > 0:
            raise ValueError(f"margin must be positive, got {margin}; write 0.4 * log(classes).")
        self.margin = margin

    def forward(self, losses: Tensor, valid: Tensor, entropy: Tensor) -> Tensor:
        """Weights ``(N,)``."""
        keep = valid & (entropy < self.margin)
        return _mean_over(keep, valid, (self.margin - entropy).exp())


class AgreesWithSource(nn.Module):
    """Keeps rows whose source class gained by adaptation: weight 1, others 0, mean over the kept.

    Lee et al., "Towards Open-Set Test-Time Adaptation Utilizing the Wisdom of Crowds in Entropy
    Minimization", arXiv 2308.06879: of a row of an unknown class the adapted model becomes less
    sure than the source model was. A row is kept if the probability of the source model's class is
    at least the source model's plus the margin; ``teacher_logits`` are the source model's.

    Args:
        margin: a probability.

    Examples:
        >>> adapted = torch.tensor([[2.0, 0.0], [0.0, 0.0]])
        >>> source = torch.tensor([[1.0, 0.0], [1.0, 0.0]])
        >>> AgreesWithSource()(torch.zeros(2), torch.tensor([True, True]), adapted, source)
        tensor([2., 0.])
    """

    def __init__(self, margin: float = 0.0) -> None:
        super().__init__()
        self.margin = margin

    def forward(
        self, losses: Tensor, valid: Tensor, logits: Tensor, teacher_logits: Tensor
    ) -> Tensor:
        """Weights ``(N,)``; 0 everywhere if no row is kept."""
        source, best = teacher_logits.softmax(1).max(1)
        adapted = logits.softmax(1).gather(1, best[:, None])[:, 0]
        keep = valid & (adapted >= source + self.margin)
        return _mean_over(keep, valid, torch.ones_like(losses))


def _mean_over(keep: Tensor, valid: Tensor, weights: Tensor) -> Tensor:
    """Weights of kept rows, such that the mean over valid rows is that over kept ones."""
    counts = torch.stack([valid.sum(), keep.sum()]).to(weights.dtype)
    rows, kept = all_sum(counts)
    return torch.where(keep, weights * rows / kept.clamp(min=1), 0)
