# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One number a training sample, kept from visit to visit: the memory of stateful losses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses.distributed import gather_with_gradient


class SampleState(nn.Module):
    """A buffer ``(num_samples,)`` by ``sample_index``; in checkpoints, float32 under any precision.

    What a step writes is read from the next optimizer step on (`set_step`; a loop of your own calls
    ``objective.set_step(step)``), so that accumulation, closures and repeated forwards of one step
    see one state. On several ranks each writes the rows of all, so the states stay equal.

    Args:
        num_samples: largest index + 1.
        initial: the value of a sample never seen.
    """

    values: Tensor

    def __init__(self, num_samples: int, initial: float) -> None:
        super().__init__()
        if num_samples < 1:
            raise ValueError(f"num_samples must be at least 1, got {num_samples}.")
        # One more place, for rows that do not count: dropping them would need their number.
        self.register_buffer("values", torch.full((num_samples + 1,), float(initial)))
        self.initial = float(initial)
        self._step = 0
        self._written: list[tuple[Tensor, Tensor]] = []
        self.register_state_dict_pre_hook(_commit)  # type: ignore[no-untyped-call]

    def read(self, index: Tensor, like: Tensor) -> Tensor:
        """The values of samples ``(N,)``, in the dtype of ``like``."""
        return self.values[index].to(like.dtype)

    def write(self, index: Tensor, values: Tensor, valid: Tensor) -> None:
        """Note new values ``(N,)`` for the next step."""
        index = torch.where(valid, index, len(self.values) - 1)
        self._written.append(
            (gather_with_gradient(index), gather_with_gradient(values.detach()).detach())
        )

    def set_step(self, step: int) -> None:
        """Let what earlier steps wrote be read."""
        if step != self._step:
            self._step = step
            self.commit()

    def commit(self) -> None:
        """Let what was written be read now."""
        for index, values in self._written:
            self.values[index] = values.to(self.values.dtype)
        self._written.clear()

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> SampleState:
        # A precision plug-in casts every buffer; in bfloat16 small changes would round away.
        before = self.values
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if self.values.element_size() < before.element_size():
            self.values = before.to(self.values.device)
        return self


def _commit(module: Any, *_: Any) -> None:
    """Before a checkpoint: the state after the last step, not before it."""
    module.commit()
