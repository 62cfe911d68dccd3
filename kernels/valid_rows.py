# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Rows that do not count: set to 0, or left out of the pass where that asks no device.

On a CPU asking which rows count is free. Elsewhere the question would stall the step, but who made
the batch may know how many there are at most: then the rows that count are sorted to the front, on
the device, and the rest is cut off.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

if TYPE_CHECKING:
    from .problem import Problem

#: With fewer rows to leave out than this share, copying the others costs more than it saves.
WORTHWHILE = 0.1
BROKEN = (
    "max_valid promises that no more rows count: take the number where the batch is made, "
    "int((target != ignore_index).sum()), or leave max_valid out."
)


def zero_ignored_rows(x: Tensor, valid: Tensor | None, fill: float = 0) -> Tensor:
    """``(N, ...)`` with 0, or ``fill``, in rows that do not count; ``valid`` is ``(N,)`` bool.

    By ``where``, not by a product: 0 times NaN is NaN. And before a loss, not only after it: the
    gradient of a softmax of inf is NaN, and stays so times 0, as do dlogits of 0 in the product
    with hidden states of NaN that makes the head's gradient.
    """
    if valid is None:
        return x
    return torch.where(valid.reshape(-1, *[1] * (x.ndim - 1)), x, fill)


def zero_ignored_rows_(x: Tensor, valid: Tensor | None) -> Tensor:
    """The same of ``(N, K)`` in place."""
    return x if valid is None else x.masked_fill_(~valid[:, None], 0)


def compact(problem: Problem) -> tuple[Problem, Tensor | None]:
    """The rows to compute, and where they stood ``(n,)`` int64; or the problem as it is, and None.

    Differentiable: gradients of rows left out are 0.
    """
    valid, most = problem.valid, problem.max_valid
    # Ranks with a class range take their rows as they come.
    if valid is None or problem.hidden is None or problem.class_range is not None:
        return problem, None
    compiling = torch.compiler.is_compiling()
    if not compiling and torch._C._are_functorch_transforms_active():
        return problem, None
    if compiling or valid.device.type != "cpu":
        return (problem, None) if most is None else front(problem, most)
    rows = valid.nonzero().squeeze(1)
    if most is not None and len(rows) > most:
        raise ValueError(f"max_valid is {most} and {len(rows)} rows count. {BROKEN}")
    if len(rows) > (1 - WORTHWHILE) * len(valid):
        return problem, None
    return problem._replace(valid=None).take(rows), rows


def front(problem: Problem, most: int) -> tuple[Problem, Tensor | None]:
    """`compact` without a question: `most` rows, among which are all that count."""
    valid = problem.valid
    assert valid is not None
    if most > (1 - WORTHWHILE) * len(valid):
        return problem, None
    # The answer is not waited for: it stops the device, not this line.
    torch._assert_async(valid.sum() <= most, BROKEN)
    rows = torch.argsort(valid.to(torch.uint8), descending=True, stable=True)[:most]
    return problem.take(rows), rows


def restore(values: Tensor, rows: Tensor | None, n: int) -> Tensor:
    """Values ``(..., len(rows))`` back in their places ``(..., n)``, 0 elsewhere."""
    if rows is None:
        return values
    return values.new_zeros(*values.shape[:-1], n).index_copy(-1, rows, values)
