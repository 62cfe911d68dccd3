# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The harmonic head: class centres instead of directions."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class HarmonicHead(nn.Module):
    """Logits ``-n log(|x - w_k|^2 + eps)``, so that p_k is proportional to distance^(-2n).

    Baek et al., "Harmonic Loss Trains Interpretable AI Models", arXiv 2502.01628. With ``loss=ce``
    this is the harmonic loss. The exponent n acts on the *squared* distance, as in the authors'
    code; the paper's exponent is 2n.

    Args:
        in_features: D.
        out_features: C.
        exponent: n; sqrt(D) if None.
        eps: added to the squared distance.

    Shapes: features ``(..., D)`` to logits ``(..., C)``, float32 at least.

    Examples:
        >>> head = HarmonicHead(2, 2, exponent=1.0)
        >>> head.weight.data = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
        >>> head(torch.tensor([[1.0, 0.0]])).softmax(1).detach()  # squared distances 1 and 4
        tensor([[0.8000, 0.2000]])
    """

    def __init__(
        self, in_features: int, out_features: int, exponent: float | None = None, eps: float = 1e-4
    ) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(out_features, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)
        self.exponent = in_features**0.5 if exponent is None else exponent
        self.eps = eps

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., C)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            x, w = features.to(dtype), self.weight.to(dtype)
            squared = x.square().sum(-1, keepdim=True) + w.square().sum(-1) - 2 * x @ w.t()
            # The expansion can fall below 0 by rounding where x is near a centre.
            return -self.exponent * (squared.clamp(min=0) + self.eps).log()
