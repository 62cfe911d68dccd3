# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Kernel 'triton': the two entries of a kernel, and the three modes behind them.

| mode | logits in memory | matrix products | for |
|---|---|---|---|
| fast | one chunk | 3 | `row_fused`: the whole objective is known when the forward pass runs |
| keep | all, in the dtype of hidden | 3 | any upstream gradient, while 2 N V bytes are affordable |
| lean | none forward, one slab backward | 4 | any upstream gradient, and everything without one |

Given logits, and soft targets (an ``(N, V)`` tensor already), take the chunk passes of mode fast.
Import this only where it is used: it needs Triton.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem import Problem
from . import fast_keep, lean
from .fast_keep import row_fused
from .tiles import statistics_mode

__all__ = ["row_fused", "statistics"]


def statistics(problem: Problem, want: tuple[str, ...], mode: str = "auto") -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph; differentiable twice.

    Args:
        mode: ``fast`` (logits made again in the backward pass), ``keep``, ``lean``, or ``auto``,
            which decides from the shape and the device's total memory.
    """
    if mode == "auto":
        needed = any(tensor is not None and tensor.requires_grad for tensor in problem.sources())
        mode = statistics_mode(problem, needed and torch.is_grad_enabled())
    if mode == "lean":
        return lean.statistics(problem, want)
    if mode not in ("fast", "keep"):
        raise ValueError(f"Unknown mode {mode!r}; write auto, fast, keep or lean.")
    return fast_keep.statistics(problem, want, keep=mode == "keep")
