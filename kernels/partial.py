# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Softmax statistics of parts of the classes, and the law that merges them.

The parts may be spans of the head inside one GPU or slices of it on several ranks: merging is
associative and commutative, so neither the number of parts nor their order matters (beyond the
last bits of sums). Sums are relative to the part's own largest logit, because the offset of large
logits would cancel in the entropy.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor

from .row_math import nan_without_classes

#: Statistics made of the sum of all logits.
MEANS = ("mean_logit", "mean_log_prob")
#: The integer type whose bits travel as a float of the same size.
_BITS = {torch.float32: torch.int32, torch.float64: torch.int64}


class Partial(NamedTuple):
    """What some of the classes say about each row: ``(N,)``, or ``(parts, N)`` to be merged.

    None where no wanted statistic needs it.
    """

    top: Tensor  # max z
    s: Tensor  # sum exp(z - top)
    t: Tensor | None  # sum exp(z - top) (z - top)
    q: Tensor | None  # sum exp(2 (z - top))
    total: Tensor | None  # sum (z - top)
    count: Tensor | None  # type: ignore[assignment]  # number of classes, beside total
    weighted: Tensor | None  # sum w (z - top), with class weights w
    mass: Tensor | None  # sum w, beside weighted
    best: Tensor | None  # int64, the lowest class with z = top
    at_target: Tensor | None  # z of the target where it is among these classes, else 0


def partial_statistics(
    z: Tensor, target: Tensor | None, class_weight: Tensor | None, want: frozenset[str]
) -> Partial:
    """Of a block of final logits ``(n, V)``, which is only read; classes count from 0."""
    top, best = z.max(1)
    x = z - top[:, None]
    e = x.exp()
    at_target = None
    if "log_prob" in want:
        assert target is not None
        at_target = z.gather(1, target[:, None]).squeeze(1)
    total = count = weighted = mass = None
    if not want.isdisjoint(MEANS):
        total, count = x.sum(1), torch.full_like(top, z.shape[1])
    if "weighted_log_prob" in want:
        assert class_weight is not None
        weight = class_weight.to(z.dtype)
        weighted, mass = torch.mv(x, weight), weight.sum().expand(len(top))
    return Partial(
        top,
        e.sum(1),
        torch.linalg.vecdot(e, x) if "entropy" in want else None,
        torch.linalg.vecdot(e, e) if "collision" in want else None,
        total,
        count,
        weighted,
        mass,
        best if "prediction" in want else None,
        at_target,
    )


def merge(parts: Partial) -> Partial:
    """``(parts, N)`` into ``(N,)``, for any number of parts."""
    top = parts.top.amax(0)
    step = parts.top - top
    r = step.exp()
    t = q = best = total = count = weighted = mass = None
    if parts.t is not None:
        t = (r * (parts.t + step * parts.s)).sum(0)
    if parts.q is not None:
        q = (r * r * parts.q).sum(0)
    if parts.total is not None:
        assert parts.count is not None
        total, count = (parts.total + step * parts.count).sum(0), parts.count.sum(0)
    if parts.weighted is not None:
        assert parts.mass is not None
        weighted, mass = (parts.weighted + step * parts.mass).sum(0), parts.mass.sum(0)
    if parts.best is not None:
        last = parts.best.amax(0)  # of a row of NaN, where no part is on top
        best = torch.where(parts.top == top, parts.best, last).amin(0)
    return Partial(
        top,
        (r * parts.s).sum(0),
        t,
        q,
        total,
        count,
        weighted,
        mass,
        best,
        None if parts.at_target is None else parts.at_target.sum(0),  # one part has it
    )


def stack(parts: Sequence[Partial]) -> Partial:
    """Parts ``(N,)`` into ``(parts, N)``."""
    return _by_field(torch.stack, parts)


def cat(parts: Sequence[Partial]) -> Partial:
    """Rows of several blocks into ``(N,)``."""
    return _by_field(torch.cat, parts)


def gather(part: Partial, group: Any, ranks: int) -> Partial:
    """Every rank's ``(N,)`` as ``(ranks, N)``, the same bits on each rank: one collective.

    At most 10 N numbers a rank. Class indices travel as the bits of a float, exactly.
    """
    if ranks == 1 or part.top.numel() == 0:
        return stack([part])
    dtype = part.top.dtype
    columns = [None if x is None else _bits(x, dtype) for x in part]
    mine = torch.stack([x for x in columns if x is not None])
    every = [torch.empty_like(mine) for _ in range(ranks)]
    dist.all_gather(every, mine, group=group)
    rows = iter(torch.stack(every, 1))  # (ranks, N) a column
    by_field: list[Any] = [None if x is None else next(rows) for x in part]
    parts = Partial(*by_field)
    if parts.best is None:
        return parts
    return parts._replace(best=parts.best.contiguous().view(_BITS[dtype]).long())


def statistics_of(part: Partial, want: frozenset[str], classes: int) -> dict[str, Tensor]:
    """The wanted statistics ``(N,)`` of all `classes`, once every part is merged; always
    `MAX_AND_SUM`. A row without any class left is NaN.
    """
    top = nan_without_classes(part.top)
    part = part._replace(s=torch.where(top.isnan(), top, part.s))
    log_s = part.s.log()
    out = {"max_logit": top, "sum_exp": part.s}
    if "logsumexp" in want:
        out["logsumexp"] = top + log_s
    if "log_prob" in want:
        assert part.at_target is not None
        # Rounding must not make p more than 1: (1 - p)^gamma would be NaN.
        out["log_prob"] = torch.minimum(part.at_target - top, torch.zeros_like(log_s)) - log_s
    if "entropy" in want:
        assert part.t is not None
        out["entropy"] = log_s - part.t / part.s
    if "mean_logit" in want:
        assert part.total is not None
        out["mean_logit"] = part.total / classes + top
    if "mean_log_prob" in want:
        assert part.total is not None
        out["mean_log_prob"] = part.total / classes - log_s
    if "weighted_log_prob" in want:
        assert part.weighted is not None
        assert part.mass is not None
        out["weighted_log_prob"] = (part.weighted - part.mass * log_s) / classes
    if "collision" in want:
        assert part.q is not None
        out["collision"] = part.q / part.s.square()
    if "confidence" in want:
        out["confidence"] = 1 / part.s
    if "prediction" in want:
        assert part.best is not None
        out["prediction"] = part.best
    return out


def _by_field(f: Callable[[list[Tensor]], Tensor], parts: Sequence[Partial]) -> Partial:
    columns = [list(column) for column in zip(*parts, strict=True)]
    fields: list[Any] = [None if column[0] is None else f(column) for column in columns]
    return Partial(*fields)


def _bits(x: Tensor, dtype: torch.dtype) -> Tensor:
    return x if x.is_floating_point() else x.to(_BITS[dtype]).view(dtype)
