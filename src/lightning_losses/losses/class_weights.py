# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed numbers, one a class, that a loss multiplies rows by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_losses.losses.constant import constant


class ClassWeights:
    """Numbers ``(C,)`` of the classes, in full precision; see `constant` for why no buffer.

    Args:
        values: one finite number a class.
        name: what the user called them, for messages.
    """

    def __init__(self, values: Sequence[float] | Tensor, name: str) -> None:
        given = torch.as_tensor(values, dtype=torch.float64)
        if given.ndim != 1 or not bool(given.isfinite().all()):
            raise ValueError(f"{name} must be one finite number a class, got {values}.")
        self.values: tuple[float, ...] = tuple(given.tolist())
        self.name = name

    def like(self, tensor: Tensor) -> Tensor:
        """All of them ``(C,)``, to compute with ``tensor``."""
        return constant(self.values, tensor)

    def of(self, target: Tensor, like: Tensor) -> Tensor:
        """Those of the target classes ``(N,)``. Raises ValueError for soft targets."""
        if target.ndim != 1 or target.is_floating_point():
            raise ValueError(
                f"{self.name} needs class indices (N,), got {target.dtype} {tuple(target.shape)}."
            )
        # Asking is free on a CPU; elsewhere the index operation complains by itself.
        asks = target.device.type == "cpu" and not torch.compiler.is_compiling()
        if asks and len(target) and int(target.max()) >= len(self.values):
            raise ValueError(
                f"{self.name} has {len(self.values)} numbers, but class {int(target.max())} occurs:"
                " give one for every class."
            )
        return self.like(like)[target]
