# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Waiting`: measurements that stay on the device until reading them stalls no step."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

#: Measurements that wait on an accelerator for a moment when reading them is free.
MOST = 100


class Waiting:
    """A queue of (step, vector); read at once on a CPU, else when it is full or asked for.

    Ask at validations and ends of epochs, when the device is waited for anyway. Vectors must be
    equal on all ranks, then ranks read the same at the same time.
    """

    def __init__(self) -> None:
        self.queue: list[tuple[int, Tensor]] = []

    def add(self, step: int, values: Tensor) -> list[tuple[int, list[float]]]:
        """Append ``(K,)`` values; returns what is to be read now, oldest first."""
        self.queue.append((step, values))
        return self.read() if values.device.type == "cpu" or len(self.queue) >= MOST else []

    def read(self) -> list[tuple[int, list[float]]]:
        """Everything that waits, as numbers; waits for the device once."""
        waiting, self.queue = self.queue, []
        if not waiting:
            return []
        numbers = torch.stack([values for _, values in waiting]).tolist()
        return [(step, row) for (step, _), row in zip(waiting, numbers, strict=True)]

    def state_dict(self) -> list[Any]:
        """Plain numbers."""
        return [[step, values.tolist()] for step, values in self.queue]

    def load_state_dict(self, state: list[Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.queue = [(step, torch.tensor(values)) for step, values in state]
