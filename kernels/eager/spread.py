# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How the logits of a row change, to first order, when hidden states and head move.

The change is ``dh W^T + h dW^T + db``, through soft-cap, scale and temperature. Its largest and
smallest entry, and its mean and variance under the softmax, are what the step radius is made of
(P. Sao, arXiv 2603.13552). No ``(N, V)`` tensor: parts of the classes are merged.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from ..logits import materialise
from ..problem import Problem

#: Largest number of logits held at once, in each of two matrices.
ENTRIES = 2**23


class Spread(NamedTuple):
    """Of the change of each row's logits, ``(N,)`` each, float32 at least, in logits (nats).

    Classes masked by -inf do not count; rows that do not count, or without any class, hold 0. A NaN
    makes ``high`` inf and ``low`` -inf: nothing is known about such a step.
    """

    high: Tensor
    low: Tensor
    mean: Tensor
    """sum_j p_j a_j."""
    variance: Tensor
    """sum_j p_j (a_j - mean)^2."""


class Part(NamedTuple):
    """What some of the classes say, ``(N,)`` each, or ``(parts, N)`` to be merged."""

    high: Tensor
    low: Tensor
    top: Tensor  # max z
    s: Tensor  # sum exp(z - top)
    mean: Tensor  # of a under exp(z - top) / s
    squares: Tensor  # sum exp(z - top) (a - mean)^2


class Direction(NamedTuple):
    """Where a problem's tensors move; None where they stay."""

    hidden: Tensor | None = None  # (N, D)
    head_weight: Tensor | None = None  # (V, D)
    head_bias: Tensor | None = None  # (V,)


def spread(problem: Problem, direction: Direction) -> Spread:
    """In plain torch on any device; no graph.

    Args:
        problem: with hidden states and head; `target` is not read.
        direction: any float dtype; computed in float32 at least.

    Raises:
        ValueError: if the problem has logits, or the shapes differ.
    """
    check(problem, direction)
    with torch.no_grad():
        step = max(1, ENTRIES // max(1, problem.source.shape[0]))
        starts = range(0, problem.classes, step)
        parts = [_part(*_classes(problem, direction, i, i + step)) for i in starts]
        return to_spread(merge(parts), problem.valid)


def check(problem: Problem, direction: Direction) -> None:
    """Raise a ValueError unless every tensor of the direction fits the problem's."""
    if problem.hidden is None:
        raise ValueError(
            "The spread along a direction is of logits from hidden states and a head; for given "
            "logits take the largest and the smallest entry of their change."
        )
    for name, moved in direction._asdict().items():
        still = getattr(problem, name)
        if moved is not None and (still is None or moved.shape != still.shape):
            shape = None if still is None else tuple(still.shape)
            raise ValueError(
                f"The direction of {name} must have its shape {shape}, got {tuple(moved.shape)}."
            )


def merge(parts: Sequence[Part]) -> Part:
    """``(N,)`` parts, or ``(parts, N)`` ones, into one; the order does not matter.

    Variances merge by the distance of the means, not by sums of squares: those would cancel where
    all logits move by about the same.
    """
    high, low, top, s, mean, squares = (
        torch.cat([x if x.ndim == 2 else x[None] for x in column])
        for column in zip(*parts, strict=True)
    )
    peak = top.amax(0)
    share = s * (top - peak).exp()
    total = share.sum(0)
    weight = share / torch.where(total == 0, 1, total)
    middle = torch.where(weight == 0, 0, weight * mean).sum(0)
    variance = torch.where(weight == 0, 0, weight * (mean - middle).square()).sum(0)
    within = torch.where(s == 0, 0, squares * (top - peak).exp()).sum(0)
    return Part(high.amax(0), low.amin(0), peak, total, middle, within + variance * total)


def to_spread(part: Part, valid: Tensor | None) -> Spread:
    """From the part that all classes were merged into."""
    some = ~(part.high < part.low)  # else no class counted
    some = some if valid is None else some & valid
    variance = part.squares / torch.where(part.s == 0, 1, part.s)
    values = (part.high, part.low, part.mean, variance)
    return Spread(*(torch.where(some, x, 0) for x in values))


def _classes(
    problem: Problem, direction: Direction, start: int, stop: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, their change, and which count, of some of the classes: ``(N, stop - start)``."""
    dtype = problem.compute_dtype

    def cut(tensor: Tensor | None) -> Tensor | None:
        return None if tensor is None else tensor[start:stop].to(dtype)

    assert problem.hidden is not None
    assert problem.head_weight is not None
    hidden, weight = problem.hidden.to(dtype), problem.head_weight[start:stop].to(dtype)
    here = problem._replace(hidden=hidden, head_weight=weight, head_bias=cut(problem.head_bias))
    with_bias = here._replace(softcap=None, temperature=None, logit_scale=1.0)
    z = materialise(here, part=True)
    change = torch.zeros_like(z)
    if direction.hidden is not None:
        change = change + direction.hidden.to(dtype) @ weight.t()
    moved = cut(direction.head_weight)
    if moved is not None:
        change = change + hidden @ moved.t()
    moved = cut(direction.head_bias)
    if moved is not None:
        change = change + moved
    if problem.softcap is not None:
        tanh = (materialise(with_bias, part=True) * (problem.logit_scale / problem.softcap)).tanh()
        change = change * (1 - tanh.square())
    change = change * problem.logit_scale
    if problem.temperature is not None:
        change = change / problem.temperature[:, None]
    keep = torch.ones_like(z, dtype=torch.bool)
    if here.head_bias is not None and problem.softcap is None:  # a soft-cap unmasks
        keep = keep & ~here.head_bias.isneginf()
    return z, change, keep


def _part(z: Tensor, change: Tensor, keep: Tensor) -> Part:
    a = torch.where(keep, change, 0)
    high = torch.where(keep, a.nan_to_num(nan=torch.inf, posinf=torch.inf), -torch.inf).amax(1)
    low = torch.where(keep, a.nan_to_num(nan=-torch.inf, neginf=-torch.inf), torch.inf).amin(1)
    top = z.amax(1)
    e = torch.where(keep, (z - top[:, None]).exp(), 0)
    s = e.sum(1)
    mean = (e * a).sum(1) / torch.where(s == 0, 1, s)
    squares = (e * (a - mean[:, None]).square()).sum(1)
    return Part(high, low, top, s, mean, squares)
