# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`DeferredReads`: numbers that stay on the device until reading them stalls no step."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

L = TypeVar("L")

#: So many vectors wait on an accelerator at most.
CAPACITY = 100


class DeferredReads(Generic[L]):
    """A queue of (label, vector); read at once on a CPU, else when it is full or asked for.

    Ask at validations and ends of epochs, when the device is waited for anyway. Where decisions
    are made from the numbers, vectors must be equal on all ranks: then ranks read the same at the
    same time.

    Args:
        capacity: vectors that wait at most.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.queue: list[tuple[L, Tensor]] = []

    def __len__(self) -> int:
        return len(self.queue)

    def add(self, label: L, values: Tensor) -> list[tuple[L, list[float]]]:
        """Append ``(K,)`` values; returns what is to be read now, oldest first."""
        self.put(label, values)
        return self.read() if values.device.type == "cpu" or self.full else []

    def put(self, label: L, values: Tensor) -> None:
        """Append ``(K,)`` values, and read nothing."""
        self.queue.append((label, values))

    @property
    def full(self) -> bool:
        """Whether so many wait that it is time to read them at any cost."""
        return len(self.queue) >= self.capacity

    def read(self) -> list[tuple[L, list[float]]]:
        """Everything that waits, as numbers; waits for the device once."""
        waiting, self.queue = self.queue, []
        if not waiting:
            return []
        numbers = torch.stack([values for _, values in waiting]).tolist()
        return [(label, row) for (label, _), row in zip(waiting, numbers, strict=True)]

    def state_dict(self) -> list[Any]:
        """Plain numbers, beside the labels."""
        return [[label, values.tolist()] for label, values in self.queue]

    def load_state_dict(self, state: list[Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.queue = [(label, torch.tensor(values)) for label, values in state]
