# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two-hot: a real-valued target as mass on the two atoms around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class TwoHot(nn.Module):
    """Turns regression into classification: the target between two atoms, split linearly.

    The baseline of Farebrother et al., "Stop Regressing", arXiv 2403.03950; MuZero's and
    DreamerV3's value targets. Its mean is the target, exactly.

    Args:
        min_value: first atom. Targets outside are moved to the end.
        max_value: last atom.
        num_bins: C, the number of atoms and of logits.

    Shapes: target ``(N,)`` real; returns ``(N, C)`` with rows that sum to 1.

    Raises:
        ValueError: an empty range or fewer than one bin; a target that is not ``(N,)`` real
            numbers.

    Examples:
        >>> TwoHot(min_value=0.0, max_value=4.0, num_bins=5)(torch.tensor([2.25]))
        tensor([[0.0000, 0.0000, 0.7500, 0.2500, 0.0000]])
    """

    contract = Contract(target=("real",))

    def __init__(self, min_value: float, max_value: float, num_bins: int) -> None:
        super().__init__()
        check_atoms("two_hot", min_value, max_value, num_bins)
        self.min_value, self.max_value, self.num_bins = min_value, max_value, num_bins

    def forward(self, target: Tensor) -> Tensor:
        """Soft targets ``(N, C)``, float32 at least."""
        check_numbers(target)
        x = target.to(torch.promote_types(target.dtype, torch.float32))[:, None]
        mass = torch.ones_like(x)
        return spread(x, mass, self.min_value, self.max_value, self.num_bins)

    def mean(self, logits: Tensor) -> Tensor:
        """The real-valued prediction ``(N,)`` of logits ``(N, C)``: the mean of the atoms."""
        atoms = torch.linspace(self.min_value, self.max_value, self.num_bins, device=logits.device)
        return logits.float().softmax(-1) @ atoms


def check_numbers(target: Tensor) -> None:
    """Raise ValueError unless the target is a number a row."""
    if target.ndim != 1:
        raise ValueError(
            f"target must be real numbers (N,), got {tuple(target.shape)}: write target.squeeze(1) "
            "for (N, 1)."
        )


def check_atoms(key: str, min_value: float, max_value: float, num_bins: int) -> None:
    """Raise ValueError for a support that is none."""
    if not max_value > min_value or num_bins < 1:
        raise ValueError(
            f"{key} needs max_value > min_value and num_bins >= 1; got {min_value}, {max_value}, "
            f"{num_bins}."
        )


def spread(
    values: Tensor, mass: Tensor, min_value: float, max_value: float, num_bins: int
) -> Tensor:
    """Mass ``(N, M)`` at real values ``(N, M)``, split between neighbouring atoms: ``(N, C)``.

    A value on an atom keeps its whole mass there (the scatter of the C51 paper's code loses it).
    """
    step = (max_value - min_value) / max(num_bins - 1, 1)
    position = (values.clamp(min_value, max_value) - min_value) / step
    lower = position.floor().long().clamp(0, max(num_bins - 2, 0))
    upper = (lower + 1).clamp(max=num_bins - 1)
    share = (position - lower).clamp(0, 1)
    out = mass.new_zeros(len(values), num_bins)
    return out.scatter_add(1, lower, mass * (1 - share)).scatter_add(1, upper, mass * share)
