# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a loss curve sees of its learning rates: how much there was, and how much of it has gone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

#: How much of the momentum of past annealing is left a step later (lambda in the paper).
DECAY = 0.999


def learning_rate_sums(rates: Sequence[float], decay: float = DECAY) -> tuple[Tensor, Tensor]:
    """``S1`` and ``S2`` of the learning-rate annealing law (arXiv 2408.11029), float64 ``(n,)``.

    ``S1_i = rate_0 + ... + rate_i`` is the progress made, and ``S2_i = m_0 + ... + m_i`` with
    ``m_i = decay * m_(i-1) + rate_(i-1) - rate_i``, ``m_0 = 0``, the annealing. A rise of the rates
    counts as negative annealing, so a warm-up goes through `without_warmup` first.

    Args:
        rates: the learning rate of each step from the first.
        decay: in (0, 1].

    Raises:
        ValueError: a decay outside of (0, 1].
    """
    _check(decay)
    progress, annealing = [], []
    s1 = s2 = momentum = 0.0
    for i, rate in enumerate(rates):
        s1 += rate
        momentum = decay * momentum + (rates[i - 1] - rate) if i else 0.0
        s2 += momentum
        progress.append(s1)
        annealing.append(s2)
    return torch.tensor(progress, dtype=torch.float64), torch.tensor(annealing, dtype=torch.float64)


def without_warmup(rates: Sequence[float]) -> list[float]:
    """The rates with those of the rise at the beginning replaced by the peak it ends in."""
    end = next((i for i in range(1, len(rates)) if rates[i] < rates[i - 1]), len(rates))
    peak = max(rates[:end], default=0.0)
    return [peak] * end + list(rates[end:])


def annealing_law(
    progress: Tensor, annealing: Tensor, floor: float, scale: float, exponent: float, gain: float
) -> Tensor:
    """``floor + scale * S1^-exponent - gain * S2``, ``(n,)``; inf where ``S1`` is 0.

    Args:
        progress: ``S1`` of `learning_rate_sums`, ``(n,)``; steps or tokens make it the power law
            with a constant.
        annealing: ``S2``, ``(n,)``.
        floor: ``L0``, in the unit of the loss, as is the result.
        scale: ``A``.
        exponent: ``alpha``.
        gain: ``C``.
    """
    return floor + scale * progress**-exponent - gain * annealing


@dataclass
class AnnealingSums:
    """`learning_rate_sums` of ``without_warmup(rates)``, a step at a time and in constant memory.

    While the rates rise, all steps so far count as taken at the newest, as the paper does.
    """

    decay: float = DECAY
    steps: int = 0
    progress: float = 0.0
    """``S1`` so far."""
    annealing: float = 0.0
    """``S2`` so far."""
    warmup: int = 0
    """Steps before the peak; what was said of them before the peak was reached does not hold."""
    momentum: float = 0.0
    newest: float = 0.0
    fallen: bool = False
    """Whether the rates have fallen; from then on a rise is no warm-up."""

    def __post_init__(self) -> None:
        _check(self.decay)

    def add(self, rate: float) -> None:
        """Count a step."""
        self.fallen = self.fallen or rate < self.newest
        if self.fallen:
            self.momentum = self.decay * self.momentum + (self.newest - rate)
            self.progress += rate
            self.annealing += self.momentum
        else:
            if rate > self.newest:
                self.warmup = self.steps
            self.progress = (self.steps + 1) * rate
        self.newest = rate
        self.steps += 1


def _check(decay: float) -> None:
    if not 0 < decay <= 1:
        raise ValueError(f"decay must be in (0, 1], got {decay}; the paper has decay=0.999.")
