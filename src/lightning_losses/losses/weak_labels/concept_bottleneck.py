# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Gumbel loss of a sparse concept bottleneck, between samples and concepts."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.rows_math import LOWEST, from_top


class ConceptBottleneckGumbel(nn.Module):
    """Mean ``-log`` of Gumbel-softmax samples over the concepts of a row and the rows of a concept.

    Semenov et al., "Sparse Concept Bottleneck Models: Gumbel Tricks in Contrastive Learning", arXiv
    2404.03323, in the form of the authors' code: half the one mean and half the other, over all
    entries. Beside `ce` on the class logits that `ConceptBottleneckHead` makes of the concepts.
    Without noise it is least where all concepts are equal, so its weight is to be small beside what
    tells concepts apart.

    The noise depends on seed and optimizer step alone, so runs repeat and ranks agree; a loop of
    your own calls ``objective.set_step(step)``. Outside training there is none.

    Args:
        temperature: of the softmax, positive.
        seed: of the noise.

    Shapes: concept_logits ``(N, K)``, the rows of all ranks together; one number, in nats.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, temperature: float = 1.0, seed: int = 0) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.seed = temperature, seed
        self.set_step(0)

    def set_step(self, step: int) -> None:
        """Take the noise of this optimizer step."""
        self.step = step

    def forward(self, concept_logits: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        z = concept_logits
        if z.ndim != 2:
            raise ValueError(
                f"concept_logits must be (N, K), a column a concept, got {tuple(z.shape)}."
            )
        if valid is None:
            valid = torch.ones(len(z), dtype=torch.bool, device=z.device)
        z = gather_with_gradient(torch.where(valid[:, None], z, 0.0))
        counts = gather_with_gradient(valid)
        if not z.numel():
            return z.sum()
        first, second = self.noise(z, counts)
        over_concepts = (from_top(z, 1) + first) / self.temperature
        over_rows = (from_top(z, 0) + second) / self.temperature
        by_row = over_concepts.logsumexp(1) - over_concepts.mean(1)
        by_row = torch.where(counts, by_row, 0.0).sum() / counts.sum().clamp(min=1)
        total = torch.where(counts[:, None], over_rows, 0.0).sum(0) / counts.sum().clamp(min=1)
        by_concept = torch.where(counts[:, None], over_rows, LOWEST).logsumexp(0) - total
        return torch.where(counts.any(), (by_row + by_concept.mean()) / 2, 0.0)

    def noise(self, z: Tensor, counts: Tensor) -> Tensor:
        """Two draws of standard Gumbel numbers ``(2, N, K)``; 0 outside training.

        The n-th row that counts gets the n-th of them, whatever rows do not count.
        """
        if not (self.training and torch.is_grad_enabled()):
            return z.new_zeros(2, *z.shape)
        generator = torch.Generator().manual_seed(self.seed + 1_000_003 * self.step)
        # On the CPU, the same for every device; row by row, so that a longer draw begins with a
        # shorter one: torch fills blocks of 16.
        rows, concepts = z.shape
        width = -(-2 * concepts // 16) * 16
        u = torch.rand(rows, width, generator=generator, dtype=torch.float64)
        u = u[:, : 2 * concepts].clamp(min=torch.finfo(torch.float64).tiny)
        g = -(-u.log()).clamp(min=1e-30).log()
        place = (counts.cumsum(0) - 1).clamp(min=0)
        return g.to(z)[place].reshape(rows, 2, concepts).movedim(1, 0)
