# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weight distribution regularisation: pulls weights towards a flat, symmetric distribution."""

from __future__ import annotations

import re

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class WeightDistribution(nn.Module):
    """Squared distance of each weight tensor's kurtosis and skewness from their targets.

    The WDR of EQ-Net (Xu et al., arXiv 2308.07650), which makes one network robust to many
    quantisations: kurtosis 1.8 and skewness 0 are those of a uniform distribution. Averaged over
    weight tensors of at least two dimensions, the first one left out, as in the authors' code.

    Args:
        pattern: regular expression that a parameter's name must contain.
        kurtosis_target: 1.8 for a uniform distribution.
        kurtosis_rate: weight of the kurtosis term.
        skewness_rate: weight of the skewness term.
        skip_first: leave out the first tensor that matches.

    Shapes: reads ``module.named_parameters()``; one number. Sharded parameters (FSDP) are not
    supported: their moments would be those of the shard.

    Raises:
        ValueError: no parameter matches, in `forward`.

    Examples:
        >>> net = torch.nn.Sequential(torch.nn.Linear(10, 10), torch.nn.Linear(10, 10))
        >>> net[1].weight.data = torch.linspace(-1, 1, 100).reshape(10, 10)  # uniform
        >>> round(WeightDistribution()(net).item(), 4)
        0.0
    """

    scope = "parameters"
    contract = Contract(target=("none",), head="none")

    def __init__(
        self,
        pattern: str = r"weight$",
        kurtosis_target: float = 1.8,
        kurtosis_rate: float = 0.015,
        skewness_rate: float = 1.0,
        skip_first: bool = True,
    ) -> None:
        super().__init__()
        self.pattern, self.kurtosis_target = pattern, kurtosis_target
        self.kurtosis_rate, self.skewness_rate = kurtosis_rate, skewness_rate
        self.skip_first = skip_first

    def forward(self, module: nn.Module) -> Tensor:
        """The penalty, 0-dim. Raises ValueError if no parameter matches."""
        found = [
            p for n, p in module.named_parameters() if p.ndim > 1 and re.search(self.pattern, n)
        ][int(self.skip_first) :]
        if not found:
            raise ValueError(
                f"weight_distribution found no weight matrix matching {self.pattern!r} in "
                f"{type(module).__name__}"
                + (" beside the first: write skip_first=False." if self.skip_first else ".")
            )
        return torch.stack([self._penalty(p) for p in found]).mean()

    def _penalty(self, weight: Tensor) -> Tensor:
        w = weight.to(torch.promote_types(weight.dtype, torch.float32))
        centred = w - w.mean()
        # Standard deviation over n - 1 and moments over n, as in the authors' code.
        variance = centred.square().sum() / max(w.numel() - 1, 1)
        z = centred / torch.where(variance > 0, variance, 1.0).sqrt()
        kurtosis = (z.pow(4).mean() - self.kurtosis_target).square()
        return self.kurtosis_rate * kurtosis + self.skewness_rate * z.pow(3).mean().square()
