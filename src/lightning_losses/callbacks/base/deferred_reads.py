# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`DeferredReads`: numbers that stay on the device until reading them stalls no step."""

from __future__ import annotations

from typing import Any, Generic, NamedTuple, TypeVar

import torch
from torch import Tensor

L = TypeVar("L")

#: So many vectors wait on an accelerator at most.
CAPACITY = 100


class Waiting(NamedTuple, Generic[L]):
    """A vector on its way to the host."""

    label: L
    values: Tensor
    event: torch.Event | None
    """Over once the values are on the host; None if asking for them is all that can be done."""

    @property
    def arrived(self) -> bool:
        """Whether reading it waits for nothing."""
        return self.values.device.type == "cpu" and (self.event is None or self.event.query())


class DeferredReads(Generic[L]):
    """A queue of (label, vector); vectors may differ in length.

    `add` reads at once on a CPU, else when the queue is full; `read` reads all, and waits for the
    device: ask at validations and ends of epochs, when it is waited for anyway. Where decisions
    are made from the numbers use only these two, on vectors that are equal on all ranks: then ranks
    read the same at the same time. `arrived` reads what the device has sent meanwhile, which
    differs between ranks, and waits for nothing.

    Args:
        capacity: vectors that wait at most.
    """

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.capacity = capacity
        self.queue: list[Waiting[L]] = []

    def __len__(self) -> int:
        return len(self.queue)

    def add(self, label: L, values: Tensor) -> list[tuple[L, list[float]]]:
        """Append ``(K,)`` values; returns what is to be read now, oldest first."""
        self.put(label, values)
        return self.read() if values.device.type == "cpu" or self.full else []

    def put(self, label: L, values: Tensor) -> None:
        """Append ``(K,)`` values, and read nothing."""
        event = None
        if values.device.type == "cuda":  # the copy begins now, and the host does not wait for it
            host = torch.empty(values.shape, dtype=values.dtype, pin_memory=True)
            values = host.copy_(values, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record()
        self.queue.append(Waiting(label, values, event))

    @property
    def full(self) -> bool:
        """Whether so many wait that it is time to read them at any cost."""
        return len(self.queue) >= self.capacity

    def arrived(self) -> list[tuple[L, list[float]]]:
        """What can be read without waiting, oldest first."""
        late = (place for place, one in enumerate(self.queue) if not one.arrived)
        return self._take(next(late, len(self.queue)))

    def read(self) -> list[tuple[L, list[float]]]:
        """Everything that waits, as numbers; waits for the device."""
        return self._take(len(self.queue))

    def tensors(self) -> list[Tensor]:
        """Everything that waits, on the host, oldest first; waits for the device."""
        taken, self.queue = self.queue, []
        if taken and (last := taken[-1].event) is not None:
            last.synchronize()
        return [one.values.cpu() for one in taken]

    def _take(self, count: int) -> list[tuple[L, list[float]]]:
        taken, self.queue = self.queue[:count], self.queue[count:]
        if taken and (last := taken[-1].event) is not None:
            last.synchronize()
        return [(one.label, one.values.tolist()) for one in taken]

    def state_dict(self) -> list[Any]:
        """Plain numbers, beside the labels."""
        for one in self.queue:
            if one.event is not None:
                one.event.synchronize()
        return [[one.label, one.values.tolist()] for one in self.queue]

    def load_state_dict(self, state: list[Any]) -> None:
        """Go on where `state_dict` was taken."""
        self.queue = [Waiting(label, torch.tensor(values), None) for label, values in state]
