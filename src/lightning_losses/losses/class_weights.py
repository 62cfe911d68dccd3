# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed numbers, one a class, that a loss multiplies or adds by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class ClassWeights:
    """Constants ``(C,)`` kept in float64, given out in the dtype and on the device of a tensor.

    Not a buffer: bf16-true would round it, and it would enter the user's ``state_dict``.

    Args:
        values: one finite number a class.
        name: what the user called them, for messages.
    """

    def __init__(self, values: Sequence[float] | Tensor, name: str) -> None:
        self.values = torch.as_tensor(values, dtype=torch.float64, device="cpu").detach().clone()
        if self.values.ndim != 1 or not bool(self.values.isfinite().all()):
            raise ValueError(f"{name} must be one finite number a class, got {values}.")
        self.name = name
        self._copies: dict[tuple[torch.device, torch.dtype], Tensor] = {}

    def like(self, tensor: Tensor) -> Tensor:
        """All of them ``(C,)``, to compute with ``tensor``."""
        key = (tensor.device, tensor.dtype)
        if key not in self._copies:
            self._copies[key] = self.values.to(device=tensor.device, dtype=tensor.dtype)
        return self._copies[key]

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
