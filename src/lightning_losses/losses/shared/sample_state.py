# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One number a training sample, kept from visit to visit: the memory of stateful losses."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from lightning_losses.distributed import gather_with_gradient
from lightning_losses.softmax import may_ask
from lightning_losses.wide_buffers import WideBuffers


class SampleState(WideBuffers):
    """A buffer ``(num_samples,)`` by ``sample_index``; in checkpoints, float32 under any precision.

    What a step writes is read from the next optimizer step on (`set_step`; a loop of your own calls
    ``objective.set_step(step)``), so that accumulation, closures and repeated forwards of one step
    see one state. On several ranks each writes the rows of all, so the states stay equal. Loading a
    checkpoint drops what was written and not yet read.

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

    def read(self, index: Tensor, valid: Tensor, like: Tensor) -> Tensor:
        """The values of samples ``(N,)``, in the dtype of ``like``.

        Raises ValueError for an index out of range in a row that counts, on a CPU.
        """
        self._check(index, valid)
        return self.values[self._places(index, valid)].to(like.dtype)

    def write(self, index: Tensor, values: Tensor, valid: Tensor) -> None:
        """Note new values ``(N,)`` of samples that were read for the next step."""
        places = self._places(index, valid)
        self._written.append(
            (gather_with_gradient(places), gather_with_gradient(values.detach()).detach())
        )
        # A loop that never sets the step would keep every batch of the run.
        if sum(len(places) for places, _ in self._written) > 2 * len(self.values):
            after = self._write_into(self.values.clone())
            self._written = [(torch.arange(len(after), device=after.device), after)]

    def set_step(self, step: int) -> None:
        """Let what earlier steps wrote be read."""
        if step != self._step:
            self._step = step
            self.commit()

    def commit(self) -> None:
        """Let what was written be read now."""
        self._write_into(self.values)
        self._written.clear()

    def _write_into(self, state: Tensor) -> Tensor:
        for places, values in self._written:
            state[places] = values.to(state.dtype)
        return state

    def _places(self, index: Tensor, valid: Tensor) -> Tensor:
        """Where samples are ``(N,)``: the last place if they do not count, none if out of range."""
        n = len(self.values)
        index = index.long()  # int16 picks nothing from a tensor
        inside = (index >= 0) & (index < n - 1)
        return torch.where(valid, torch.where(inside, index, n), n - 1)

    def _check(self, index: Tensor, valid: Tensor) -> None:
        if not (may_ask(index) and len(index)):
            return
        low, high = (int(x) for x in torch.where(valid, index, 0).aminmax())
        n = len(self.values) - 1
        if low < 0 or high >= n:
            raise ValueError(
                f"sample_index must be in [0, {n}) for num_samples={n}, found {low} to {high}: "
                f"write loss.KEY.num_samples={max(high + 1, n)} for indices that begin at 0."
            )

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)  # type: ignore[no-untyped-call]
        self._written.clear()  # what the run before wrote is not of the one that is loaded


def _commit(module: Any, *_: Any) -> None:
    """Before a checkpoint: the state after the last step, not before it."""
    module.commit()
