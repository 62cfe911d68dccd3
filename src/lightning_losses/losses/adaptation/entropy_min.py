# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy minimisation: predictions of unlabelled data become sure."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract


class EntropyMinimization(nn.Module):
    """``H(p)`` of each row, in nats.

    Grandvalet and Bengio (2004); Tent (Wang et al., arXiv 2006.10726) minimises it at test time in
    the affine parameters of batch norm only. Alone it is least when every row has the same class:
    put ``marginal_entropy`` beside it.

    Shapes: per-row values ``(N,)`` from softmax statistics.
    """

    scope = "rows"
    contract = Contract(target=("none",))

    def forward(self, entropy: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        return entropy
