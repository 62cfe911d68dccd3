# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`StrideSample`: evenly spaced rows, a bounded number, of a stream of unknown length."""

from __future__ import annotations

from torch import Tensor


class StrideSample:
    """Keeps row 0, k, 2k, ... of all that come, in order; when too many, k doubles.

    So between ``max_rows / 2`` and ``max_rows`` of many rows are kept, spread evenly over all of
    them, and the same ones in every run: nothing is drawn at random. Kept on the CPU.

    Args:
        max_rows: the most rows kept, at least 1.
    """

    def __init__(self, max_rows: int) -> None:
        self.max_rows, self.stride, self.seen = max_rows, 1, 0
        self._kept: list[tuple[Tensor, ...]] = []
        self._count = 0

    def add(self, *tensors: Tensor) -> None:
        """Offer rows: tensors with one first dimension ``(n, ...)`` each."""
        n = len(tensors[0])
        first = -self.seen % self.stride
        self.seen += n
        chosen = tuple(tensor[first :: self.stride].detach().cpu().clone() for tensor in tensors)
        self._kept.append(chosen)
        self._count += len(chosen[0])
        while self._count > self.max_rows:
            self._halve()

    def _halve(self) -> None:
        position, kept = 0, []
        for part in self._kept:
            kept.append(tuple(tensor[position % 2 :: 2] for tensor in part))
            position += len(part[0])
        self._kept, self.stride = kept, 2 * self.stride
        self._count = sum(len(part[0]) for part in kept)

    def parts(self) -> list[tuple[Tensor, ...]]:
        """What is kept, batch by batch; batches without rows left out."""
        return [part for part in self._kept if len(part[0])]
