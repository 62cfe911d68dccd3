# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""HL-Gauss: a real-valued target as the histogram of a Gaussian around it."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.targets.two_hot import check_numbers


class HLGauss(nn.Module):
    """Turns regression into classification: mass of N(target, sigma) in each of C bins.

    Imani and White, arXiv 1806.04613; Farebrother et al., "Stop Regressing", arXiv 2403.03950.

    Args:
        min_value: left edge of the first bin.
        max_value: right edge of the last bin. Targets outside are moved to the edge.
        num_bins: C, the number of logits.
        sigma_to_bin_ratio: sigma in bin widths; 0.75 in the paper.

    Shapes: target ``(N,)`` real; returns ``(N, C)`` with rows that sum to 1.

    Raises:
        ValueError: an empty range, fewer than one bin, or a ratio that is not positive.

    Examples:
        >>> HLGauss(min_value=0.0, max_value=4.0, num_bins=4)(torch.tensor([2.0]))
        tensor([[0.0881, 0.4119, 0.4119, 0.0881]])
    """

    contract = Contract(target=("real",))

    def __init__(
        self,
        min_value: float,
        max_value: float,
        num_bins: int,
        sigma_to_bin_ratio: float = 0.75,
    ) -> None:
        super().__init__()
        if not max_value > min_value or num_bins < 1 or not sigma_to_bin_ratio > 0:
            raise ValueError(
                "hl_gauss needs max_value > min_value, num_bins >= 1 and sigma_to_bin_ratio > 0; "
                f"got {min_value}, {max_value}, {num_bins}, {sigma_to_bin_ratio}."
            )
        self.min_value, self.max_value, self.num_bins = min_value, max_value, num_bins
        self.sigma = sigma_to_bin_ratio * (max_value - min_value) / num_bins

    def forward(self, target: Tensor) -> Tensor:
        """Soft targets ``(N, C)``, float32 at least."""
        check_numbers(target)
        x = target.to(torch.promote_types(target.dtype, torch.float32))
        x = x.clamp(self.min_value, self.max_value)
        edges = torch.linspace(
            self.min_value, self.max_value, self.num_bins + 1, dtype=x.dtype, device=x.device
        )
        cdf = torch.erf((edges - x[:, None]) / (2**0.5 * self.sigma))
        # A target within the range always leaves mass in it, so the divisor is never 0.
        return cdf.diff(dim=1) / (cdf[:, -1:] - cdf[:, :1])

    def mean(self, logits: Tensor) -> Tensor:
        """The real-valued prediction ``(N,)`` of logits ``(N, C)``: the mean of bin centres."""
        edges = torch.linspace(
            self.min_value, self.max_value, self.num_bins + 1, device=logits.device
        )
        return logits.float().softmax(-1) @ ((edges[1:] + edges[:-1]) / 2)
