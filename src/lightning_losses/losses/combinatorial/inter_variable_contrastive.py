# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""CoCo-MILP's contrast between the variables of an integer program that good solutions set."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import LOWEST, from_top


class InterVariableContrastive(nn.Module):
    """``sum_q w_q [-log(sum over ones of e^(z/t) / sum over all) + alpha mean hinge]``.

    z are the scores of an instance's binary variables, q its known solutions with weights ``w =
    softmax(-value / value_scale)``, and the hinge is ``max(0, margin - (p_i - p_j))`` with p the
    sigmoid, over pairs of a variable at one and one at zero. Pu et al., "CoCo-MILP", arXiv
    2511.09209, as in the authors' code, which clamps p at 1e-8 and sums over the instances of a
    batch: write ``reduction="sum"``. A solution without ones has nothing to contrast and adds 0.

    Args:
        temperature: t.
        margin: of probabilities, so in [0, 1].
        alpha: weight of the hinge.
        value_scale: of the objective values, negative if the problem maximises; the authors have
            -1e4, 100, 10 and 100 for their four benchmarks.

    Shapes: logits ``(B, n)``, an instance a row; solutions ``(B, Q, n)`` of 1 and 0, and -1 where a
    row has fewer variables or solutions than others; solution_value ``(B, Q)``. Per-row values
    ``(B,)``. Memory is of order Q n, for the pairs are summed by sorting.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="sigmoid")

    def __init__(
        self,
        temperature: float = 0.1,
        margin: float = 0.9,
        alpha: float = 0.01,
        value_scale: float = 100.0,
    ) -> None:
        super().__init__()
        if not (temperature > 0 and 0 <= margin <= 1 and alpha >= 0 and value_scale):
            raise ValueError(
                "inter_variable_contrastive needs temperature > 0, margin in [0, 1], alpha >= 0 "
                f"and value_scale other than 0; got {temperature}, {margin}, {alpha}, "
                f"{value_scale}."
            )
        self.temperature, self.margin = temperature, margin
        self.alpha, self.value_scale = alpha, value_scale

    def forward(
        self,
        logits: Tensor,
        solutions: Tensor,
        solution_value: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        b, n = logits.shape
        if solutions.is_floating_point() or solutions.ndim != 3:
            raise ValueError(
                f"solutions must be integers (B, Q, n) of 1, 0 and -1, got {solutions.dtype} "
                f"{tuple(solutions.shape)}: write solutions.long()."
            )
        if solutions.shape[::2] != (b, n) or solution_value.shape != solutions.shape[:2]:
            raise ValueError(
                f"inter_variable_contrastive got logits {(b, n)}, solutions "
                f"{tuple(solutions.shape)} and solution_value {tuple(solution_value.shape)}: they "
                "are (B, n), (B, Q, n) and (B, Q)."
            )
        if valid is not None:
            solutions = torch.where(valid[:, None, None], solutions, -1)
        ones, zeros = solutions == 1, solutions == 0
        known = (ones | zeros).any(2)
        contrast = torch.where(ones.any(2), self._contrast(logits, ones, ones | zeros), 0.0)
        losses = contrast + self.alpha * mean_hinge(logits.sigmoid(), ones, zeros, self.margin)
        rank = -solution_value.detach().to(logits.dtype) / self.value_scale
        weight = torch.where(known, rank, LOWEST).softmax(1)
        # A solution that is not there may hold anything as its value, but counts 0.
        return torch.where(known, weight * losses, 0.0).sum(1)

    def _contrast(self, logits: Tensor, ones: Tensor, every: Tensor) -> Tensor:
        """-log of the share of the ones in the softmax over variables, ``(B, Q)``."""
        z = (from_top(logits) / self.temperature).clamp(min=LOWEST)[:, None]
        above, below = (torch.where(which, z, LOWEST).logsumexp(2) for which in (ones, every))
        return below - above


def mean_hinge(p: Tensor, ones: Tensor, zeros: Tensor, margin: float) -> Tensor:
    """Mean of ``max(0, margin - p_i + p_j)`` over i of the ones and j of the zeros, ``(B, Q)``.

    Args:
        p: ``(B, n)``.
        ones: ``(B, Q, n)`` bool; zeros likewise. Without a pair the mean is 0.
        margin: of p.
    """
    order = p.detach().argsort(1, descending=True)
    falling = p.gather(1, order)
    # How many, from the largest down, lie above p_i - margin: the same for all solutions.
    reach = torch.searchsorted(-falling.detach(), margin - p.detach())  # (B, n)
    at = order[:, None].expand_as(zeros)
    counted = zeros.gather(2, at).to(p.dtype)
    index = reach[:, None].expand_as(zeros)
    count, total = (
        F.pad(x.cumsum(2), (1, 0)).gather(2, index) for x in (counted, counted * falling[:, None])
    )
    sums = torch.where(ones, count * (margin - p)[:, None] + total, 0.0).sum(2)
    return sums / (ones.sum(2) * zeros.sum(2)).clamp(min=1)
