# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A moving average of positive numbers that only their logarithms can hold, such as Z."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from lightning_losses.wide_buffers import WideBuffers


class MovingLogMean(WideBuffers):
    """``u <- (1 - rate) u + rate m`` kept as ``log u``; the first m is taken as it is.

    The state is in checkpoints, float32 at least under any precision. What a step writes is read
    from the next optimizer step on (`set_step`; a loop of your own calls
    ``objective.set_step(step)``), the mean of its batches where it accumulates, so that closures
    and repeated forwards of one step see one state. Loading a checkpoint drops what was written and
    not yet read.

    Args:
        rate: in (0, 1]; 1 keeps nothing of earlier steps.
    """

    value: Tensor  # log u, -inf before anything was written
    pending: Tensor  # log of the sum of what this step wrote, and how often it did

    def __init__(self, rate: float) -> None:
        super().__init__()
        if not 0 < rate <= 1:
            raise ValueError(f"rate must be in (0, 1], got {rate}.")
        self.rate = rate
        self.register_buffer("value", torch.full((), -math.inf))
        self.register_buffer("pending", torch.tensor([-math.inf, 0.0]), persistent=False)
        self._step = 0
        self.register_state_dict_pre_hook(_commit)  # type: ignore[no-untyped-call]

    def mixed(self, log_mean: Tensor) -> Tensor:
        """``log((1 - rate) u + rate m)`` for ``log m`` 0-dim, without writing it."""
        before = self.value.to(log_mean.dtype)
        keep = math.log1p(-self.rate) if self.rate < 1 else -math.inf
        both = torch.logaddexp(before + keep, log_mean + math.log(self.rate))
        both = torch.where(before == -torch.inf, log_mean, both)
        return torch.where(log_mean == -torch.inf, before, both)  # a batch without rows

    def write(self, log_mean: Tensor) -> None:
        """Note ``log m`` of a batch for the next step; -inf is nothing to note."""
        new = log_mean.detach().to(self.pending)
        total, times = self.pending
        self.pending.copy_(torch.stack([torch.logaddexp(total, new), times + (new > -torch.inf)]))

    def set_step(self, step: int) -> None:
        """Let what earlier steps wrote be read."""
        if step != self._step:
            self._step = step
            self.commit()

    def commit(self) -> None:
        """Let what was written be read now."""
        total, times = self.pending
        self.value.copy_(self.mixed(total - times.clamp(min=1).log()))
        self.forget()

    def forget(self) -> None:
        """Drop what was written and not yet read."""
        self.pending[0], self.pending[1] = -math.inf, 0.0

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)  # type: ignore[no-untyped-call]
        self.forget()  # what the run before wrote is not of the one that is loaded


def _commit(module: Any, *_: Any) -> None:
    """Before a checkpoint: the state after the last step, not before it."""
    module.commit()
