# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Sinkhorn divergence: what it costs to move sampled segmentations onto the annotators'."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.sample_sets import distances, read_sets

#: Found exact to 1e-12 after 25, at any temperature.
OWN_ITERATIONS = 25


class SinkhornDivergence(nn.Module):
    """``OT(x, y) - OT(x, x) / 2 - OT(y, y) / 2`` with cost ``|x - y|^2 / 2``, blurred.

    OT is the cheapest way to move one set onto the other, made smooth by an entropy of temperature
    blur^2; without the last two terms it would pull all samples to the mean. Feydy et al., arXiv
    1810.08278 (geomloss). PULASki (Chatterjee et al., arXiv 2312.15686) puts it in the place of the
    reconstruction term of a probabilistic segmentation network: add the KL term of its latent
    variables yourself.

    Computed by Sinkhorn's iterations from a temperature of the largest cost down to blur^2: where
    blur is far below the distances, or far above, OT is then exact, and between them wrong by up to
    1e-4 of itself. The gradient is that of the transport plan found (envelope theorem): as right
    as the plan, and not to be differentiated again.

    Args:
        blur: a length, in the units of the maps' Euclidean distance.
        iterations: half of them cool down, half settle. Sets are small, so they cost little.

    Shapes: estimate ``(B, S, ...)`` S sampled maps of each image (probabilities), reference
    ``(B, A, ...)`` A drawn ones; S and A may differ. Per-image values ``(B,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def __init__(self, blur: float = 0.05, iterations: int = 100) -> None:
        super().__init__()
        if not (blur > 0 and iterations >= 1):
            raise ValueError(
                f"pulaski_sinkhorn needs blur > 0 and iterations >= 1, got {blur}, {iterations}."
            )
        self.blur, self.iterations = blur, iterations

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-image values ``(B,)``."""
        x, y = read_sets(estimate, reference, valid)
        across = self._transport(half_squares(x, y), self._potential)
        own, other = (self._transport(half_squares(t, t), self._own_potential) for t in (x, y))
        return across - (own + other) / 2

    def _transport(self, cost: Tensor, potential: Callable[[Tensor], Tensor]) -> Tensor:
        """The regularised cost ``(B,)`` of moving one set onto the other."""
        with torch.no_grad():
            g = potential(cost)
        # Its derivative with g fixed is the cost's under the plan, and g is best: no more to add.
        return soft_minimum(cost - g[:, None, :], self.blur**2).mean(1) + g.mean(1)

    def _potential(self, cost: Tensor) -> Tensor:
        """What each point of the second set pays, ``(B, A)``, from costs ``(B, S, A)``."""
        g = torch.zeros_like(cost[:, 0, :])
        last = self.blur**2
        start = cost.amax((1, 2)).clamp(min=last)[:, None]
        cooling = max(1, self.iterations // 2)
        for step in range(self.iterations):
            share = min(1.0, (step + 1) / cooling)
            temperature = start ** (1 - share) * last**share
            f = soft_minimum(cost - g[:, None, :], temperature)
            g = soft_minimum(cost.mT - f[:, None, :], temperature)
        return g

    def _own_potential(self, cost: Tensor) -> Tensor:
        """The same for a set and itself: both potentials are one, and a few means find it."""
        g = torch.zeros_like(cost[:, 0, :])
        for _ in range(OWN_ITERATIONS):
            g = (g + soft_minimum(cost - g[:, None, :], self.blur**2)) / 2
        return g


def half_squares(x: Tensor, y: Tensor) -> Tensor:
    """``|x - y|^2 / 2`` of all pairs, ``(B, S, A)``."""
    return distances(x, y).square() / 2


def soft_minimum(cost: Tensor, temperature: Tensor | float) -> Tensor:
    """Smooth minimum over the last dimension; the mean at infinite temperature."""
    t = temperature[..., None] if isinstance(temperature, Tensor) else temperature
    mean = (-cost / t).logsumexp(-1) - math.log(cost.shape[-1])
    return -temperature * mean
