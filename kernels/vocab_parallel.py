# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Vocabulary parallelism: every rank holds all rows and a slice of the head.

Forward, each rank makes the partial statistics of its classes; one small gather (at most 10 N
numbers a rank) and `merge` give every rank the statistics of all classes, the same bits on each.
Backward, each rank makes dlogits of its own classes: its slice of the head's gradient is complete,
and the gradient of the hidden states is summed over ranks.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.distributed as dist
from torch import Tensor

from .class_range import ClassRange
from .eager import chunked
from .eager.chunked import Route
from .partial import Partial, cat, gather, merge, partial_statistics, statistics_of
from .problem import Problem
from .row_math import Coefficients

#: (problem of one rank's classes, wanted statistics) -> their partial statistics ``(N,)``
Partials = Callable[[Problem, frozenset[str]], Partial]


def statistics(
    problem: Problem, want: tuple[str, ...], kernel: str = "chunked"
) -> dict[str, Tensor]:
    """Every wanted statistic of all classes, ``(N,)`` each, with graph; differentiable once.

    A collective, in the forward pass and (if hidden needs a gradient) in the backward pass: every
    rank of the group must call it with the same rows, targets, wishes and upstream gradients.

    Args:
        problem: `class_range` set; logits or head of this rank's classes, targets of all classes.
        want: names out of ``STATISTICS``.
        kernel: ``chunked``, or ``triton``, which runs mode lean (given logits or class weights:
            ``chunked``).

    Raises:
        ValueError: a target is no class, known at once on a CPU; elsewhere a device assertion.
        NotImplementedError: under `torch.compile`.
        RuntimeError: in the backward pass, for a second derivative.
    """
    assert problem.class_range is not None
    if torch.compiler.is_compiling():
        raise NotImplementedError(
            "class_range does not compile: leave the loss out of torch.compile "
            "(torch.compiler.disable), or give the whole head to one rank."
        )
    if problem.target is not None:
        _check_target(problem.target, problem.class_range)
    route = BY_CHUNKS
    if kernel == "triton" and problem.logits is None and problem.class_weight is None:
        from .triton import lean

        route = across_ranks(lean.partials, lean.LEAN)
    return chunked.statistics(problem, want, route)


def across_ranks(partials: Partials, local: Route) -> Route:
    """A route over all ranks from one rank's partial statistics and one rank's backward pass."""

    def forward(problem: Problem, want: frozenset[str]) -> dict[str, Tensor]:
        held = problem.class_range
        assert held is not None
        mine, here = _local(problem)
        part = partials(mine, want)
        if part.best is not None:
            part = part._replace(best=part.best + held.start)
        if part.at_target is not None:
            assert here is not None
            part = part._replace(at_target=torch.where(here, part.at_target, 0))
        part = merge(gather(part, held.group, held.ranks))
        return statistics_of(part, want, held.num_classes)

    def backward(
        problem: Problem, stats: dict[str, Tensor], k: Coefficients, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        held = problem.class_range
        assert held is not None
        mine, here = _local(problem)
        if k.d is not None:
            assert here is not None
            k = k._replace(d=torch.where(here[:, None], k.d, 0))
        if "prediction" in stats:
            best, here = _inside(stats["prediction"], held)
            stats = stats | {"prediction": best}
            if k.f is not None:
                k = k._replace(f=torch.where(here[:, None], k.f, 0))
        logits, hidden, *rest = local.backward(mine, stats, k, needs)
        if hidden is not None and held.ranks > 1 and hidden.numel():
            # Half precision would round once a rank.
            total = hidden.to(problem.compute_dtype).contiguous()
            dist.all_reduce(total, group=held.group)
            hidden = total.to(hidden.dtype)
        return logits, hidden, *rest

    return Route(forward, backward)


def chunked_partials(problem: Problem, want: frozenset[str]) -> Partial:
    """By chunks, in plain torch on any device."""
    z: Tensor | None = None
    parts = []
    for chunk in chunked.chunks(problem, chunked.chunk_rows(problem)):
        z = chunked.chunk_logits(chunk, z)
        for block, rows in chunked.blocks(z, chunk):
            parts.append(
                partial_statistics(
                    chunked.block_logits(block, rows), rows.target, rows.class_weight, want
                )
            )
    return cat(parts)


BY_CHUNKS = across_ranks(chunked_partials, chunked.BY_CHUNKS)


def _local(problem: Problem) -> tuple[Problem, Tensor | None]:
    """The problem of this rank's classes alone, and the rows whose target is among them."""
    target, here, weight = problem.target, None, problem.class_weight
    held = problem.class_range
    assert held is not None
    if target is not None:
        target, here = _inside(target, held)
    if weight is not None:
        weight = weight[held.start : held.stop]
    return problem._replace(target=target, class_weight=weight, class_range=None), here


def _inside(classes: Tensor, held: ClassRange) -> tuple[Tensor, Tensor]:
    """Classes ``(N,)`` counted from this rank's first, and which of them it holds; others are 0.

    Against the true range, never a padded one, or a padded row would answer for a real class.
    """
    here = (classes >= held.start) & (classes < held.stop)
    return torch.where(here, classes - held.start, 0), here


def _check_target(target: Tensor, held: ClassRange) -> None:
    """No rank would answer for such a target, and its logit would silently be 0."""
    inside = (target >= 0) & (target < held.num_classes)
    if target.device.type != "cpu":  # asking would stall
        torch._assert_async(inside.all())
    elif not bool(inside.all()):
        raise ValueError(
            f"target must be in [0, {held.num_classes}), the classes of all ranks, or "
            f"ignore_index; found {int(target[~inside][0])}. Targets are not counted from a "
            "rank's first class: pass them as they are."
        )
