# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Energy weights: rows of low energy, far from the decision boundary, count less."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class EnergyWeight(nn.Module):
    """Weights ``1 / softplus(abs(E))`` with the energy ``E = -log sum_k exp f_k``; at most 1/log 2.

    The weighting of WEAT, Mirza et al., arXiv 2407.06315. It sees a constant added to the logits,
    which a softmax does not.

    Examples:
        >>> valid = torch.tensor([True, True])
        >>> EnergyWeight()(torch.zeros(2), valid, logsumexp=torch.tensor([0.0, 5.0]))
        tensor([1.4427, 0.1997])
    """

    def forward(self, losses: Tensor, valid: Tensor, logsumexp: Tensor) -> Tensor:
        """Weights ``(N,)``; their mean is not 1."""
        return 1 / -F.logsigmoid(-logsumexp.abs())
