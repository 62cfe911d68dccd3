# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel balancing: inverse propensities under which observed rows look like the population."""

from __future__ import annotations

from functools import reduce

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.validation import same_rows


class KernelBalancing(nn.Module):
    """``mean(w ln w) + gamma (relu(S - slack) + relu(-S - slack))``, S the imbalance of w.

    Li et al., "Debiased Collaborative Filtering with Kernel-Based Causal Balancing", ICLR
    2024: the objective of a model that learns weights w for `IPSBinaryCrossEntropy`; train it
    with an optimizer of its own. ``D_j = mean_population k(e_j, x) - mean_observed w k(e_j, x)`` at
    points e_j, with the kernel ``exp(-kernel_gamma |x - y|^2)``, and S their sum, as in the
    authors' code, where signs cancel; with ``each`` every D_j has hinges of its own.

    Args:
        gamma: weight of the imbalance.
        slack: imbalance that costs nothing.
        kernel_gamma: inverse squared width of the kernel, positive.
        each: bound each D_j instead of their sum.

    Shapes: inverse_propensity ``(N,)`` the weights, positive, with gradient; features ``(N, D)`` of
    the observed rows; ref_features ``(R, D)`` of the population and kernel_points ``(J, D)``, the
    same on every rank. One number for the batch of all ranks.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(
        self,
        gamma: float = 1.0,
        slack: float = 1e-5,
        kernel_gamma: float = 0.1,
        each: bool = False,
    ) -> None:
        super().__init__()
        if not kernel_gamma > 0 or not slack >= 0:
            raise ValueError(
                f"kernel_gamma must be positive and slack at least 0, got {kernel_gamma} and "
                f"{slack}."
            )
        self.gamma, self.slack, self.kernel_gamma, self.each = gamma, slack, kernel_gamma, each

    def forward(
        self,
        inverse_propensity: Tensor,
        features: Tensor,
        ref_features: Tensor,
        kernel_points: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(inverse_propensity=inverse_propensity, features=features)
        if features.ndim != 2:
            raise ValueError(f"features must be (N, D), got {tuple(features.shape)}.")
        for name, value in (("ref_features", ref_features), ("kernel_points", kernel_points)):
            if value.ndim != 2 or value.shape[1] != features.shape[-1]:
                raise ValueError(
                    f"{name} must be (M, {features.shape[-1]}) as features "
                    f"{tuple(features.shape)}, got {tuple(value.shape)}."
                )
        inverse_propensity, features, ref_features, kernel_points = _one_dtype(
            inverse_propensity, features, ref_features, kernel_points
        )
        if valid is None:
            valid = torch.ones_like(inverse_propensity, dtype=torch.bool)
        w = torch.where(valid, inverse_propensity, 1)
        x = torch.where(valid[:, None], features, 0)
        count = all_sum(valid.sum().to(w.dtype)).clamp(min=1)
        entropy = (w * w.clamp(min=torch.finfo(w.dtype).tiny).log()).sum()
        here = torch.where(valid, w, 0) @ self._kernel(x, kernel_points)
        sums = reduce_with_gradient(torch.cat([entropy[None], here])) / count
        gap = self._kernel(ref_features, kernel_points).mean(0) - sums[1:]
        gap = gap if self.each else gap.sum(0, keepdim=True)
        hinges = (gap - self.slack).relu() + (-gap - self.slack).relu()
        value = sums[0] + self.gamma * hinges.sum()
        return torch.where(all_sum(valid.sum()) > 0, value, sums.sum() * 0)

    def _kernel(self, x: Tensor, points: Tensor) -> Tensor:
        """``(N, J)``."""
        squared = x.square().sum(1, keepdim=True) - 2 * x @ points.t() + points.square().sum(1)
        return (-self.kernel_gamma * squared.clamp(min=0)).exp()


def _one_dtype(*tensors: Tensor) -> tuple[Tensor, ...]:
    """All in the widest of their dtypes."""
    dtype = reduce(torch.promote_types, (t.dtype for t in tensors), torch.float32)
    return tuple(t.to(dtype) for t in tensors)
