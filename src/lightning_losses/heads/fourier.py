# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Fourier head: class logits as a smooth density over ordered bins."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class FourierHead(nn.Module):
    """Logits of bins from a truncated Fourier series, which is a density by construction.

    Gillman et al., "Fourier Head: Helping Large Language Models Learn Complex Probability
    Distributions", arXiv 2410.22269. The autocorrelation C_k of complex coefficients gives
    ``pdf(b) = 1/2 + Re sum_k C_k / C_0 exp(i pi k b)`` at the bin centres of [-1, 1].

    Args:
        in_features: D.
        out_features: number of bins.
        num_frequencies: N; smoother when small.
        regularization: weight of the smoothness penalty, 1e-6 in the paper's experiments.
        floor: added to bin probabilities before the logarithm.

    After a forward with gradients ``aux_loss`` holds the penalty, 0-dim; add it to the loss.

    Shapes: features ``(..., D)`` to logits ``(..., bins)``, float32 at least.

    Raises:
        ValueError: fewer than one frequency, or a floor that is not positive.

    Examples:
        >>> head = FourierHead(8, 20, num_frequencies=3)
        >>> logits = head(torch.ones(2, 8))
        >>> logits.shape, logits.exp().sum(1).allclose(torch.ones(2), atol=1e-3)
        (torch.Size([2, 20]), True)
    """

    aux_loss: Tensor | None

    def __init__(
        self,
        in_features: int,
        out_features: int,
        num_frequencies: int,
        regularization: float = 0.0,
        floor: float = 1e-5,
    ) -> None:
        super().__init__()
        if num_frequencies < 1 or not floor > 0:
            raise ValueError(
                f"num_frequencies must be at least 1 and floor positive, got {num_frequencies} and "
                f"{floor}."
            )
        self.linear = nn.Linear(in_features, 2 * (num_frequencies + 1))
        with torch.no_grad():  # as the authors begin
            self.linear.weight.div_(100)
            self.linear.bias.div_(100)
        self.bins, self.num_frequencies = out_features, num_frequencies
        self.regularization, self.floor = regularization, floor
        self.aux_loss = None

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., bins)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            z = nn.functional.linear(
                features.to(dtype), self.linear.weight.to(dtype), self.linear.bias.to(dtype)
            )
            real, imaginary = self._autocorrelation(*z.chunk(2, dim=-1))
            self.aux_loss = self._smoothness(real, imaginary)
            centres = (torch.arange(self.bins, device=z.device, dtype=dtype) + 0.5) * 2
            k = torch.arange(1, self.num_frequencies + 1, device=z.device, dtype=dtype)
            phase = math.pi * k[:, None] * (centres / self.bins - 1)
            power = real[..., :1].clamp(min=torch.finfo(dtype).tiny)
            a, b = real[..., 1:] / power, imaginary[..., 1:] / power
            pdf = (0.5 + a @ phase.cos() - b @ phase.sin()).clamp(min=0)
            return (pdf / pdf.sum(-1, keepdim=True) + self.floor).log()

    def _autocorrelation(self, real: Tensor, imaginary: Tensor) -> tuple[Tensor, Tensor]:
        """``C_k = sum_j z_(j+k) conj(z_j)``, k = 0 .. N."""
        n = self.num_frequencies + 1
        parts = []
        for k in range(n):
            a, b = real[..., k:], imaginary[..., k:]
            c, d = real[..., : n - k], imaginary[..., : n - k]
            parts.append(((a * c + b * d).sum(-1), (b * c - a * d).sum(-1)))
        return torch.stack([p[0] for p in parts], -1), torch.stack([p[1] for p in parts], -1)

    def _smoothness(self, real: Tensor, imaginary: Tensor) -> Tensor | None:
        if not self.regularization or not torch.is_grad_enabled():
            return None
        k = torch.arange(self.num_frequencies + 1, device=real.device, dtype=real.dtype)
        squares = (k.square() * (real.square() + imaginary.square())).sum(-1)
        return self.regularization * 2 * (2 * math.pi**2) * squares.mean()
