# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Only the actions where the policy is most open: the forking tokens."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.losses.shared.token_covariance import first


class HighEntropyMask(nn.Module):
    """Weight 1 for the ``ratio`` of rows with the largest entropy, of all ranks; 0 for the others.

    Wang et al., "Beyond the 80/20 Rule", arXiv 2506.01939: the fifth of the tokens where a
    continuation forks carries what is learned. Rows left out still count in the mean. At least one
    is kept; of equal entropies the first rows. Which rows are kept depends on the size of
    micro-batches.

    Args:
        ratio: rows to keep, a fraction of those that count; 0.2 in the paper.

    Raises:
        ValueError: a ratio that is no fraction.

    Examples:
        >>> entropy = torch.tensor([0.1, 2.0, 0.3, 0.1, 0.5])
        >>> HighEntropyMask(ratio=0.2)(torch.zeros(5), torch.ones(5, dtype=torch.bool), entropy)
        tensor([0., 1., 0., 0., 0.])
    """

    def __init__(self, ratio: float = 0.2) -> None:
        super().__init__()
        if not 0 < ratio <= 1:
            raise ValueError(f"ratio must be in (0, 1], got {ratio}; write 0.2.")
        self.ratio = ratio

    def forward(self, losses: Tensor, valid: Tensor, entropy: Tensor) -> Tensor:
        """Weights ``(N,)``, 0 or 1."""
        order = torch.where(valid, -entropy, torch.inf)
        return first(order, self.ratio, valid).to(losses.dtype)
