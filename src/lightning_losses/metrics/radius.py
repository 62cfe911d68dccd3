# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How far logits may move along a direction before the log of the softmax sum has a singularity.

With logits ``z + t a`` a row's loss, as a function of complex ``t``, is analytic up to the nearest
zero of ``sum_k exp(z_k + t a_k)``. The functions here bound that distance from below, one number a
row; the radius of a batch is the smallest. ``r = step / radius`` measures a step: at ``r <= 1`` no
loss changes by more than pi nats. That is no promise that it falls.

Classes with a logit of -inf are masked out and drop out of every formula. Rows that do not count
(ignored, or of zero weight) are the caller's to leave out.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.softmax import Problem

#: Largest number of logits held at once by `secant`, in each of its two matrices.
ENTRIES = 2**23

_PI_SQUARED = math.pi**2


def spread(delta: Tensor, keep: Tensor | None = None) -> Tensor:
    """Largest minus smallest entry of each row ``(N,)`` of differences or slopes ``(N, V)``.

    A row's loss changes by at most the spread of its logits' change. A common shift counts 0.

    Args:
        delta: ``(N, V)``; a NaN in a class that counts makes the row's spread inf.
        keep: ``(N, V)`` bool, the classes that count; all if None. A row without any gives 0.
    """
    return _width(*_extremes(_at_least_float32(delta), keep))


def rho_a(slopes: Tensor, z: Tensor | None = None) -> Tensor:
    """The bound pi / spread(slopes), ``(N,)``; inf where the slopes are all equal.

    P. Sao, arXiv 2603.13552. In units of t, where the logits are ``z + t slopes``.

    Args:
        slopes: ``(N, V)``.
        z: ``(N, V)`` logits, read only for which classes are masked out by -inf.
    """
    return math.pi / spread(slopes, None if z is None else ~z.isneginf())


def rho_dom(z: Tensor, slopes: Tensor) -> Tensor:
    """The bound hypot(u, pi / spread), ``(N,)``: exact for two classes, never below `rho_a`.

    ``u`` is the nearest real t at which no class holds more than half of the probability: as long
    as one does, the others together cannot cancel it, and there is no zero. Ours. Passes over the
    classes 80 times in float64: for diagnostics, not for every step.

    Args:
        z: ``(N, V)`` logits, -inf for masked classes.
        slopes: ``(N, V)``.
    """
    z, unit, width = _unit_slopes(z, slopes)
    top = z.argmax(1, keepdim=True)
    slope = unit - unit.gather(1, top)  # against the class on top
    margin = z.gather(1, top) - z
    margin = margin.scatter(1, top, math.inf)  # the class on top does not overtake itself
    nearest = torch.minimum(_even_odds(margin, slope), _even_odds(margin, -slope))
    return _per_width(torch.hypot(nearest, nearest.new_tensor(math.pi)), width)


def rho_var(z: Tensor, slopes: Tensor) -> Tensor:
    """A bound from the variance of the slopes under the softmax, ``(N,)``, never below `rho_a`.

    One pass over the classes: the one for large V, where a steep slope on a class of negligible
    probability makes `rho_a` far too small. Ours; from ``y^2 >= 2 / Var_u`` at a zero ``u + iy``,
    and ``Var_u <= Var_0 exp(spread |u|)``.

    Args:
        z: ``(N, V)`` logits, -inf for masked classes.
        slopes: ``(N, V)``.
    """
    z, unit, width = _unit_slopes(z, slopes)
    log_p = torch.log_softmax(z, 1)
    unit = unit - unit.gather(1, z.argmax(1, keepdim=True))
    mean = (log_p.exp() * unit).sum(1, keepdim=True)
    # In logs: behind a margin of 800 nats the variance is no float64, the radius is.
    log_s = torch.logsumexp(log_p + 2 * (unit - mean).abs().log(), 1)
    corner = (math.log(2 / _PI_SQUARED) - log_s).clamp(min=0)
    w = _lambert_of_exp(-log_s)
    inner = torch.where(
        corner <= _PI_SQUARED / 2,
        torch.hypot(corner, corner.new_tensor(math.pi)),
        (w * (w + 2)).sqrt(),
    )
    return _per_width(inner, width)


class Secant(NamedTuple):
    """What `secant` measures, ``(N,)`` each."""

    spread: Tensor
    """Spread of the change of the row's logits."""
    size: Tensor
    """Largest absolute logit before; times the precision's epsilon, what rounding may do to it."""


def secant(before: Problem, after: Problem) -> Secant:
    """How the logits of the same rows changed from one source to the other.

    Streams over the classes, so that logits from hidden states and a head are never held whole.
    A class that is -inf in both is masked out.

    Raises:
        ValueError: if the two have different numbers of rows or classes.
    """
    rows, classes = len(before.source), before.classes
    if (len(after.source), after.classes) != (rows, classes):
        raise ValueError(
            f"The logits were ({rows}, {classes}) before and ({len(after.source)}, "
            f"{after.classes}) after; the rows must be the same."
        )
    step = max(1, ENTRIES // max(1, rows))
    high = torch.full((rows,), -math.inf, device=before.source.device, dtype=before.compute_dtype)
    low, size = -high, torch.zeros_like(high)
    for start in range(0, classes, step):
        old, new = _logits(before, start, start + step), _logits(after, start, start + step)
        masked = old.isneginf() & new.isneginf()
        top, bottom = _extremes(new - old, ~masked)
        high, low = torch.maximum(high, top), torch.minimum(low, bottom)
        size = torch.maximum(size, torch.where(masked, 0, old).abs().amax(1))
    return Secant(_width(high, low), size)


def _logits(problem: Problem, start: int, stop: int) -> Tensor:
    """Logits ``(N, stop - start)`` of some classes as `Problem` defines them, -inf left as is."""
    if problem.logits is not None:
        z: Tensor = problem.logits[:, start:stop].to(problem.compute_dtype)
    else:
        assert problem.hidden is not None
        z = (problem.hidden @ problem.head()[start:stop].t()).to(problem.compute_dtype)
    if problem.head_bias is not None:
        z = z + problem.head_bias[start:stop]
    z = z * problem.logit_scale
    if problem.softcap is not None:
        z = problem.softcap * torch.tanh(z / problem.softcap)
    if problem.temperature is not None:
        z = z / problem.temperature[:, None]
    return z


def _extremes(delta: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
    """Largest and smallest kept entry of each row; -inf and inf where none is kept."""
    if keep is None:
        keep = torch.ones_like(delta, dtype=torch.bool)
    if delta.shape[1] == 0:
        empty = delta.new_full(delta.shape[:1], -math.inf)
        return empty, -empty
    return (
        torch.where(keep, delta, -math.inf).amax(1),
        torch.where(keep, delta, math.inf).amin(1),
    )


def _width(high: Tensor, low: Tensor) -> Tensor:
    """high - low; 0 where nothing was kept; inf where a NaN hid the answer."""
    width = torch.where(high < low, 0, high - low)
    return torch.where(width.isnan(), math.inf, width)


def _per_width(bound: Tensor, width: Tensor) -> Tensor:
    """bound / width; inf without slopes, 0 (no step is safe) where a NaN hid the answer."""
    radius = torch.where(width > 0, bound / width, math.inf)
    return torch.where(radius.isnan(), 0, radius)


def _unit_slopes(z: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, slopes scaled to a spread of 1, and their spread; masked classes made harmless."""
    if z.shape != slopes.shape or z.ndim != 2 or not z.shape[1]:
        raise ValueError(
            f"Logits and slopes must both be (N, V) with V of at least 1, got {tuple(z.shape)} and "
            f"{tuple(slopes.shape)}."
        )
    z, slopes = _at_least_float32(z), _at_least_float32(slopes)
    keep = ~z.isneginf()
    width = spread(slopes, keep)
    top = slopes.gather(1, z.argmax(1, keepdim=True))
    slopes = torch.where(keep, slopes, top)
    # Scaled before anything is squared: slopes of 1e-200 or 1e200 are as good as any.
    unit = (slopes - top) / torch.where(width > 0, width, 1)[:, None]
    return torch.where(keep.any(1, keepdim=True), z, 0), unit, width


def _even_odds(margin: Tensor, slope: Tensor) -> Tensor:
    """Smallest u >= 0, ``(N,)``, at which ``sum_j exp(u slope_j - margin_j) >= 1``, from below.

    Convex in u, so below 1 on one interval; inf if it never gets there.
    """
    rising = (slope > 0) & margin.isfinite()
    # Overtaken by one class alone at the latest; by V - 1 equal ones at the earliest.
    crossing = torch.where(rising, margin / torch.where(rising, slope, 1), math.inf)
    high = crossing.amin(1)
    behind = margin - math.log(max(1, margin.shape[1] - 1))
    earliest = torch.where(rising, behind / torch.where(rising, slope, 1), math.inf)
    low = earliest.amin(1).clamp(min=0)
    exponents = torch.where(margin.isfinite(), -margin, -math.inf)
    already = torch.logsumexp(exponents, 1) >= 0
    reachable = high.isfinite()
    low, high = torch.where(reachable, low, 0), torch.where(reachable, high, 0)
    for _ in range(80 if margin.dtype == torch.float64 else 40):
        middle = (low + high) / 2
        below = torch.logsumexp(exponents + middle[:, None] * slope, 1) < 0
        low, high = torch.where(below, middle, low), torch.where(below, high, middle)
    return torch.where(already, 0, torch.where(reachable, low, math.inf))


def _lambert_of_exp(x: Tensor) -> Tensor:
    """``W(e^x)``: the w with ``w + log w = x``, for x of at least 1, by Newton's method."""
    x = x.clamp(min=1, max=torch.finfo(x.dtype).max)
    w = x - x.log().clamp(max=x - 1)  # at least 1, where Newton's steps stay positive
    for _ in range(8):
        w = w * (1 + x - w.log()) / (1 + w)
    return w


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
