# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Gibbs weights: pairs that are near to each other count more, as optimal transport pairs them."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.weighting.kl_dro import KLDRO


class Gibbs(nn.Module):
    """Weights proportional to ``exp(-|x0 - x1|^2 / epsilon)``, mean 1 over the rows that count.

    Weighted conditional flow matching, Calvo-Ordonez et al., arXiv 2507.22270: independent pairs,
    weighted so, are in expectation the plan of entropic optimal transport. A large epsilon gives
    the plain mean. The norm to mean 1 is ours: in many dimensions the weights themselves are all 0.
    Only their ratios within a batch count then, and few pairs may carry it: choose epsilon of the
    order of how much squared distances differ, not of their size.

    Args:
        epsilon: in units of squared distance, positive.

    Shapes: x0 and x1 ``(N, ...)``, the ends of each row's path.

    Raises:
        ValueError: an epsilon that is not positive; x0 and x1 of different shapes.

    Examples:
        >>> x0, x1 = torch.zeros(2, 3), torch.tensor([[0.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
        >>> Gibbs(epsilon=1.0)(torch.zeros(2), torch.tensor([True, True]), x0, x1)
        tensor([1.4621, 0.5379])
    """

    def __init__(self, epsilon: float = 1.0) -> None:
        super().__init__()
        if not epsilon > 0:
            raise ValueError(f"epsilon must be positive, got {epsilon}.")
        self.softmax = KLDRO(radius=epsilon)  # the same weights, of minus the distance

    def forward(self, losses: Tensor, valid: Tensor, x0: Tensor, x1: Tensor) -> Tensor:
        """Weights ``(N,)`` for losses ``(N,)``; 0 where not valid."""
        if x0.shape != x1.shape:
            raise ValueError(
                f"x0 {tuple(x0.shape)} and x1 {tuple(x1.shape)} must have one shape, (N, ...)."
            )
        gap = (x0 - x1).flatten(1) if x0.ndim > 1 else (x0 - x1)[:, None]
        weights: Tensor = self.softmax(-gap.square().sum(1).to(losses.dtype), valid)
        return weights
