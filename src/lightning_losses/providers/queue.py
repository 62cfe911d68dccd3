# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A queue: makes ``ref_features`` and ``ref_target`` of earlier batches, for losses on pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.distributed import gather_with_gradient


class Queue(nn.Module):
    """Provides ``ref_features`` and ``ref_target``: the last rows of earlier batches, all ranks'.

    Wang et al., "Cross-Batch Memory for Embedding Learning" (XBM), arXiv 1912.06798. Each row of
    the batch is then compared with what is remembered instead of with the batch: small batches,
    many pairs. What is remembered has no gradient and is as old as it is long. After the loss's
    columns are taken, a training step pushes its own rows; validation pushes none. A row that does
    not count, or has no label, is remembered without one and pairs with nobody; so do the places
    that are still empty. Equal on every rank, and part of the ``state_dict``: a resumed run goes on
    with it.

    Args:
        size: rows that are remembered, of all ranks together.
        dim: D of the features.

    Raises:
        ValueError: a size or a dim that is not positive.

    Examples:
        >>> queue = Queue(size=4, dim=2)
        >>> batch = {"features": torch.ones(2, 2), "target": torch.tensor([5, 7])}
        >>> queue(batch)["ref_target"]  # nothing is remembered yet
        tensor([-1, -1, -1, -1])
        >>> queue(batch)["ref_target"]
        tensor([-1, -1,  5,  7])
    """

    makes = "ref_features"
    reads = ("features", "target")
    features: Tensor
    target: Tensor

    def __init__(self, size: int, dim: int) -> None:
        super().__init__()
        if not (size > 0 and dim > 0):
            raise ValueError(f"size and dim must be positive, got {size} and {dim}.")
        self.size, self.dim = size, dim
        self.register_buffer("features", torch.zeros(size, dim))
        self.register_buffer("target", torch.full((size,), -1))

    def forward(self, tensors: Mapping[str, Any]) -> dict[str, Tensor]:
        """``ref_features (size, D)`` and ``ref_target (size,)``, of before this step.

        Raises:
            ValueError: no features or labels, or features of another dim.
        """
        x, y = tensors.get("features"), tensors.get("target")
        if x is None or y is None or y.ndim != 1:
            raise ValueError(
                "The queue needs features and a label a row: write self.compute_loss(features="
                "features, target=y)."
            )
        if x.shape[-1] != self.dim:
            raise ValueError(
                f"The queue holds features of dim {self.dim}, got {tuple(x.shape)}: write "
                f"dim: {x.shape[-1]}."
            )
        made = {"ref_features": self.features, "ref_target": self.target}
        if self.training and torch.is_grad_enabled():
            self._push(x.detach(), y, tensors.get("valid"))
        return made

    def _push(self, x: Tensor, y: Tensor, valid: Tensor | None) -> None:
        """Remember the rows ``(B, D)`` or ``(B, views, D)`` of all ranks, and forget as many."""
        if valid is not None:
            y = torch.where(valid, y, -1)
            x = torch.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, 0)
        views = x.shape[1] if x.ndim == 3 else 1
        y = gather_with_gradient(y.repeat_interleave(views)).to(self.target)
        x = gather_with_gradient(x.reshape(-1, self.dim)).detach().to(self.features)
        # New tensors, not in place: the loss of this step still needs the old ones.
        self.features = torch.cat([self.features, x])[-self.size :]
        self.target = torch.cat([self.target, y])[-self.size :]
