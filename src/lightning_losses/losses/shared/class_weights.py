# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Fixed numbers, one a class, that a loss multiplies rows by."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.validation import check_length
from lightning_losses.softmax import may_ask


class ClassWeights:
    """Numbers ``(C,)`` of the classes, in full precision; see `constant` for why no buffer.

    Args:
        values: one finite number a class, at least 0.
        name: what the user called them, for messages.
    """

    def __init__(self, values: Sequence[float] | Tensor, name: str) -> None:
        given = torch.as_tensor(values, dtype=torch.float64)
        if given.ndim != 1 or not bool((given.isfinite() & (given >= 0)).all()):
            raise ValueError(
                f"{name} must be one finite number a class, at least 0, got {values}; write 0 for "
                "a class that does not count."
            )
        self.values: tuple[float, ...] = tuple(given.tolist())
        self.name = name

    def like(self, tensor: Tensor) -> Tensor:
        """All of them ``(C,)``, to compute with ``tensor``."""
        return constant(self.values, tensor)

    def check(self, logits: Tensor | None) -> None:
        """Raise ValueError if there are more or fewer than classes of the logits ``(N, C)``."""
        if logits is not None:
            check_length(self.name, len(self.values), logits.shape[1])

    def of(self, target: Tensor, like: Tensor) -> Tensor:
        """Those of the target classes ``(N,)``. Raises ValueError for soft targets."""
        if target.ndim != 1 or target.is_floating_point():
            raise ValueError(
                f"{self.name} needs class indices (N,), got {target.dtype} {tuple(target.shape)}."
            )
        # Asking is free on a CPU; elsewhere the index operation complains by itself.
        if may_ask(target) and len(target) and int(target.max()) >= len(self.values):
            raise ValueError(
                f"{self.name} has {len(self.values)} numbers, but class {int(target.max())} occurs:"
                " give one for every class."
            )
        return self.like(like)[target]
