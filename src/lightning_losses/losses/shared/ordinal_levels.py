# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Ordered classes as levels: is the class above 0, above 1, ...?"""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.softmax import may_ask


def levels(target: Tensor, tasks: int) -> Tensor:
    """``(N, K-1)`` bool, ``target > k``. Raises ValueError for labels beyond K - 1, on a CPU."""
    if target.ndim != 1 or target.is_floating_point():
        raise ValueError(f"ordinal losses need class indices (N,), got {tuple(target.shape)}.")
    if may_ask(target) and bool(((target < 0) | (target > tasks)).any()):
        raise ValueError(
            f"logits (N, {tasks}) are the levels of {tasks + 1} ordered classes, so target must be "
            f"in [0, {tasks}], found {int(target.min())} to {int(target.max())}. "
            "K classes need K - 1 logits."
        )
    return target[:, None] > torch.arange(tasks, device=target.device)
