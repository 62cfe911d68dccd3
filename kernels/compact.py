# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Leaves rows that do not count out of the pass, where it is free to ask which they are: on a CPU.

Elsewhere the question would stall the step; there mode lean skips whole blocks of them instead.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import Problem

#: With fewer rows to leave out than this share, copying the others costs more than it saves.
WORTHWHILE = 0.1


def compact(problem: Problem) -> tuple[Problem, Tensor | None]:
    """The rows that count, and where they stood ``(n,)`` int64; or the problem as it is, and None.

    Differentiable: gradients of rows left out are 0.
    """
    valid = problem.valid
    if (
        valid is None
        or problem.hidden is None
        or valid.device.type != "cpu"
        or problem.class_range is not None  # whose ranks take their rows as they come
        or torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
    ):
        return problem, None
    rows = valid.nonzero().squeeze(1)
    if len(rows) > (1 - WORTHWHILE) * len(valid):
        return problem, None
    return problem._replace(valid=None).take(rows), rows


def restore(values: Tensor, rows: Tensor | None, n: int) -> Tensor:
    """Values ``(..., len(rows))`` back in their places ``(..., n)``, 0 elsewhere."""
    if rows is None:
        return values
    return values.new_zeros(*values.shape[:-1], n).index_copy(-1, rows, values)
