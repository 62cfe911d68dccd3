# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`SumMetric`: a metric whose state is sums that no cast of the module around it may round."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric

# One bfloat16 step above 1: rounding may carry a probability so far, a logit goes further.
SLACK = 2.0**-7


class SumMetric(Metric):
    """State of int64 counts and float64 sums, reduced over processes by adding."""

    is_differentiable = False
    higher_is_better = None
    full_state_update = False

    def add_sums(self, **states: tuple[tuple[int, ...], torch.dtype]) -> None:
        """Add zeros of these shapes and dtypes as states."""
        for name, (shape, dtype) in states.items():
            self.add_state(name, torch.zeros(shape, dtype=dtype), dist_reduce_fx="sum")

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Any:
        """Follow the module to another device, never to another dtype.

        `module.to(torch.bfloat16)`, which bf16-true training does, would round the sums and edges.
        """
        device = fn(torch.empty(0, device=self.device)).device

        def move(tensor: Tensor) -> Tensor:
            if not tensor.is_floating_point():
                return tensor.to(device)
            # Narrow before a move to MPS and widen after one from it: it cannot hold float64.
            if sum_dtype(device) == torch.float32:
                return tensor.float().to(device)
            return tensor.to(device).double()

        return super()._apply(move, exclude_state)


def sum_dtype(device: torch.device) -> torch.dtype:
    """Dtype for sums: float64, but float32 on MPS, which has no float64.

    float32 sums lose single rows past 2**24 of them in a bin; counts stay int64 and exact.
    """
    return torch.float32 if device.type == "mps" else torch.float64
