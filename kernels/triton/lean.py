# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mode lean: no logits in the forward pass, a slab of them at a time in the backward pass.

Rows that do not count are sorted to the end, on the device and without asking it how many they are:
both kernels leave whole blocks of them out.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from ..eager import chunked
from ..partial import Partial, merge, partial_statistics
from ..problem import MAX_AND_SUM, STATISTICS, Problem
from ..row_math import Coefficients
from ..valid_rows import zero_ignored_rows, zero_ignored_rows_
from .lean_backward_op import lean_gradient
from .lean_forward_op import lean_statistics, spans
from .lean_tile import checked


def statistics(problem: Problem, want: tuple[str, ...]) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph; differentiable twice (not leanly)."""
    return chunked.statistics(problem, want, LEAN)


class _Order(NamedTuple):
    """A problem with the rows that count first."""

    problem: Problem
    order: Tensor | None  # (N,) int64, where each row came from
    back: Tensor | None  # (N,) int64, where each row went
    num_valid: Tensor | None  # 0-dim int32, how many count


def _sort(problem: Problem) -> _Order:
    if problem.valid is None:
        return _Order(problem, None, None, None)
    order = torch.argsort(problem.valid.to(torch.uint8), descending=True, stable=True)
    rows = problem.take(order)
    assert rows.hidden is not None
    # Eagerly the copy is ours to write to.
    zero = zero_ignored_rows if torch.compiler.is_compiling() else zero_ignored_rows_
    hidden = zero(rows.hidden, rows.valid)
    num_valid = problem.valid.sum(dtype=torch.int32)
    return _Order(rows._replace(hidden=hidden), order, order.argsort(), num_valid)


def _forward(problem: Problem, want: frozenset[str]) -> dict[str, Tensor]:
    _supported(problem, want)
    problem, _, back, num_valid = _sort(problem)
    assert problem.hidden is not None
    names = [*MAX_AND_SUM, *(name for name in STATISTICS if name in want)]
    values = lean_statistics(
        checked(problem.hidden),
        problem.head(),
        problem.head_bias,
        problem.temperature,
        problem.target if "log_prob" in want else None,
        problem.valid,
        num_valid,
        problem.logit_scale,
        problem.softcap,
        " ".join(names),
    )
    return dict(zip(names, (_scatter(x, back) for x in values), strict=True))


def partials(problem: Problem, want: frozenset[str]) -> Partial:
    """Partial statistics ``(N,)`` of the problem's classes, for `vocab_parallel`: not an op."""
    _supported(problem, want)
    problem, _, back, num_valid = _sort(problem)
    assert problem.hidden is not None
    n, classes = problem.hidden.shape[0], problem.classes
    if n == 0:
        nothing = problem.hidden.new_zeros(0, 1).float()
        return partial_statistics(nothing, problem.target, None, want)
    parts, at_target, span = spans(
        checked(problem.hidden),
        problem.head(),
        problem.head_bias,
        problem.temperature,
        problem.target if "log_prob" in want else None,
        problem.valid,
        num_valid,
        problem.logit_scale,
        problem.softcap,
        want,
    )
    m, s, t, q, total, best = parts.values()
    assert m is not None
    assert s is not None
    none = None if at_target is None else torch.zeros_like(m)
    count = None
    if total is not None:
        first = torch.arange(0, classes, span, device=m.device, dtype=m.dtype)
        count = (classes - first).clamp(max=span)[:, None].expand_as(m)
    part = merge(Partial(m, s, t, q, total, count, None, None, _long(best), none))._replace(
        at_target=at_target
    )
    if problem.valid is None:
        return part
    # A row that does not count gets the statistics of equal logits, as in `merge_spans`.
    many = float(classes)
    equal = (0.0, many, 0.0, many, 0.0, many, 0.0, 0.0, 0, 0.0)
    fields = [
        None if x is None else _scatter(torch.where(problem.valid, x, other), back)
        for x, other in zip(part, equal, strict=True)
    ]
    return Partial(*fields)  # type: ignore[arg-type]


def _scatter(x: Tensor, back: Tensor | None) -> Tensor:
    """Sorted rows back in their places; not written in place, which torch 2.11 compiles wrong."""
    return x if back is None else x.index_select(0, back)


def _long(x: Tensor | None) -> Tensor | None:
    return None if x is None else x.long()


def _backward(
    problem: Problem, stats: dict[str, Tensor], k: Coefficients, needs: tuple[bool, ...]
) -> tuple[Tensor | None, ...]:
    problem, order, back, num_valid = _sort(problem)
    assert problem.hidden is not None
    assert problem.head_weight is not None

    def take(tensor: Tensor | None) -> Tensor | None:
        if tensor is None or order is None:
            return tensor
        return tensor.reshape(-1).index_select(0, order)

    max_logit = take(stats["max_logit"])
    assert max_logit is not None
    gradients = lean_gradient(
        problem.hidden,
        problem.head_weight,
        problem.head_bias,
        problem.temperature,
        problem.target if k.d is not None else None,
        problem.valid,
        num_valid,
        max_logit,
        take(stats["prediction"]) if k.f is not None else None,
        *(take(x) for x in k[:6]),  # `_supported` leaves no class weights
        problem.logit_scale,
        problem.softcap,
        *needs[1:],
    )
    hidden, weight, bias = (
        x if need else None for x, need in zip(gradients, needs[1:], strict=True)
    )
    return None, None if hidden is None else _scatter(hidden, back), weight, bias


LEAN = chunked.Route(_forward, _backward)


def _supported(problem: Problem, want: frozenset[str]) -> None:
    if "weighted_log_prob" in want:
        raise ValueError(
            "Mode lean has no weighted_log_prob (class weights with label smoothing): write "
            "kernel='triton' or kernel='chunked'."
        )
    if problem.logits is not None:
        raise ValueError("Mode lean makes no logits, and logits were given: write kernel='triton'.")
    if problem.target is not None and problem.target.ndim == 2:
        raise ValueError(
            "Mode lean holds no (N, V) tensor, and the soft targets "
            f"{tuple(problem.target.shape)} are one: write kernel='triton' or kernel='chunked'."
        )
