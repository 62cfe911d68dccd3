# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How the logits of the same rows changed, and the radius bounds along that change.

Streams over the classes, so that logits from hidden states and a head are never held whole. The
change of the whole step is the direction: ``t = 1`` is the step, and a radius above 1 contains it.

Where each rank holds a slice of the classes, what the slices say is merged: a handful of numbers a
row, and every rank has the same bits.
"""

from __future__ import annotations

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.step_radius.bounds import (
    Moments,
    extremes,
    merge,
    moments,
    rho_dom,
    rho_from_moments,
    width_of,
)
from lightning_losses.softmax import Problem, final_logits

#: Largest number of logits held at once, in each of two matrices: what a CPU's cache holds, and
#: elsewhere so many that a launch is worth its time.
ENTRIES, ENTRIES_OF_DEVICE = 2**20, 2**24

#: At most so many logits are searched for `rho_dom`, in 12 passes over each.
SEARCHED = 2**20

#: On a CPU so many rows first: their smallest `rho_dom` rules most others out.
FIRST = 16


class Bounds(NamedTuple):
    """What tells more than the spread, ``(N,)`` each."""

    rho_dom: Tensor
    """`rho_dom` of the rows that may have the smallest, `rho_a` of all others."""
    rho_var: Tensor
    """`rho_var` of each row."""
    slope: Tensor | None
    """Derivative of the row's cross-entropy at t = 0 in nats; None without class targets."""


class Secant(NamedTuple):
    """What `secant` measures, ``(N,)`` each."""

    spread: Tensor
    """Spread of the change of the row's logits."""
    size: Tensor
    """Largest absolute logit before; times the precision's epsilon, what rounding may do to it."""
    bounds: Bounds | None = None
    """If asked for."""


def secant(before: Problem, after: Problem, bounds: bool = False) -> Secant:
    """How the logits of the same rows changed from one source to the other.

    A class that is -inf in both is masked out. With a `class_range` it is of all classes, and a
    collective: every rank of its group must come here with the same rows.

    Args:
        before: with class indices ``(N,)`` or distributions ``(N, V)`` as target, for the slope.
        after: the same rows.
        bounds: whether to compute `Bounds` too, in the same pass over the classes.

    Raises:
        ValueError: if the two have different numbers of rows or classes.
    """
    rows, classes, held = len(before.source), before.classes, before.class_range
    first = 0 if held is None else held.start
    if (len(after.source), after.classes) != (rows, classes):
        raise ValueError(
            f"The logits were ({rows}, {classes}) before and ({len(after.source)}, "
            f"{after.classes}) after; the rows must be the same."
        )
    entries = ENTRIES if before.source.device.type == "cpu" else ENTRIES_OF_DEVICE
    step = max(1, entries // max(1, rows))
    high = torch.full((rows,), -math.inf, device=before.source.device, dtype=before.compute_dtype)
    low, size, towards = -high, torch.zeros_like(high), torch.zeros_like(high)
    total: Moments | None = None
    for start in range(0, classes, step):
        old, new = (final_logits(p.of_classes(start, start + step)) for p in (before, after))
        masked, change = old.isneginf() & new.isneginf(), new - old
        top, bottom = extremes(change, ~masked)
        high, low = torch.maximum(high, top), torch.minimum(low, bottom)
        size = torch.maximum(size, torch.where(masked, 0, old).abs().amax(1))
        if bounds:
            part = moments(old, change, ~masked)
            total = part if total is None else merge(total, part)
            if before.target is not None:
                change = torch.where(masked, 0, change)
                towards = towards + _of_target(before.target, change, first + start)
    if held is not None:
        every = held.stacked(torch.stack([high, low, size, towards, *(total or ())]))
        high, low = every[:, 0].amax(0), every[:, 1].amin(0)
        size, towards = every[:, 2].amax(0), every[:, 3].sum(0)
        total = reduce(merge, [Moments(*part[4:]) for part in every]) if bounds else None
    width = width_of(high, low)
    if total is None:
        return Secant(width, size)
    slope = None
    if before.target is not None:
        indices = before.target.ndim == 1
        every_class = before.all_classes
        mass = _inside(before.target, every_class) if indices else before.target.sum(1)
        slope = mass * (total.reference + total.mean) - towards
    dominated = _rho_dom(before, after, width)
    return Secant(width, size, Bounds(dominated, rho_from_moments(total, width), slope))


def _of_target(target: Tensor, change: Tensor, start: int) -> Tensor:
    """``(N,)`` what the target's classes among these contribute to its mean change."""
    stop = start + change.shape[1]
    if target.ndim == 2:
        share = target[:, start:stop].to(change.dtype)
        return torch.where(share == 0, 0, share * change).sum(1)
    here = (target >= start) & (target < stop)
    index = torch.where(here, target - start, 0)[:, None]
    return torch.where(here, change.gather(1, index)[:, 0], 0)


def _inside(target: Tensor, classes: int) -> Tensor:
    """1 for indices of classes; a row with another (an ordinal scale, say) has slope 0."""
    return ((target >= 0) & (target < classes)).float()


def _rho_dom(before: Problem, after: Problem, width: Tensor) -> Tensor:
    """`rho_dom` of the rows that may have the smallest, as far as `SEARCHED` reaches.

    The widest rows come first. A row whose `rho_a` is above the smallest found cannot have it, but
    an accelerator would have to be waited for to say which those are.
    """
    found = math.pi / width
    order = width.argsort(descending=True)
    rows = min(len(order), max(1, SEARCHED // max(1, before.all_classes)))
    held = before.class_range
    free = width.device.type == "cpu"
    start, stop = 0, min(FIRST, rows) if free else rows
    while start < stop and before.classes:
        chosen = order[start:stop]
        old, new = (final_logits(p.take(chosen)) for p in (before, after))
        if held is not None:
            old, new = held.whole(old), held.whole(new)
        found[chosen] = torch.where(width[chosen].isinf(), 0, rho_dom(old, new - old))
        if not free:
            break
        smaller = int((math.pi / width[order] < found[order[:stop]].amin()).sum())
        start, stop = stop, min(rows, smaller)
    return found
