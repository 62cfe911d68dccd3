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

_PI_SQUARED = math.pi**2


def spread(delta: Tensor, keep: Tensor | None = None) -> Tensor:
    """Largest minus smallest entry of each row ``(N,)`` of differences or slopes ``(N, V)``.

    A row's loss changes by at most the spread of its logits' change. A common shift counts 0.

    Args:
        delta: ``(N, V)``; a NaN in a class that counts makes the row's spread inf.
        keep: ``(N, V)`` bool, the classes that count; all if None. A row without any gives 0.
    """
    return width_of(*extremes(_at_least_float32(delta), keep))


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
    classes 12 times (float64: 20): for diagnostics, not for every step.

    Args:
        z: ``(N, V)`` logits, -inf for masked classes.
        slopes: ``(N, V)``.
    """
    z, unit, width = _unit_slopes(z, slopes)
    top = z.argmax(1, keepdim=True)
    slope = unit - unit.gather(1, top)  # against the class on top
    margin = z.gather(1, top) - z
    margin = margin.scatter(1, top, math.inf)  # the class on top does not overtake itself
    both = _even_odds(margin.repeat(2, 1), torch.cat([slope, -slope]))
    nearest = both.reshape(2, -1).amin(0)
    return _per_width(torch.hypot(nearest, torch.full_like(nearest, math.pi)), width)


def rho_var(z: Tensor, slopes: Tensor) -> Tensor:
    """A bound from the variance of the slopes under the softmax, ``(N,)``, never below `rho_a`.

    One pass over the classes: the one for large V, where a steep slope on a class of negligible
    probability makes `rho_a` far too small. Ours; from ``y^2 >= 2 / Var_u`` at a zero ``u + iy``,
    and ``Var_u <= Var_0 exp(spread |u|)``.

    Args:
        z: ``(N, V)`` logits, -inf for masked classes.
        slopes: ``(N, V)``.
    """
    z, slopes = _checked(z, slopes)
    keep = ~z.isneginf()
    return rho_from_moments(moments(z, slopes, keep), spread(slopes, keep))


class Moments(NamedTuple):
    """Slopes under the softmax of some classes, ``(N,)`` each; `merge` joins two sets of classes.

    Logarithms of sums of ``exp(z)``, and slopes against that of the class on top: behind a margin
    of 800 nats the variance is no float64, the radius is.
    """

    top: Tensor
    """The largest logit."""
    reference: Tensor
    """The slope of that class."""
    log_mass: Tensor
    """log sum exp(z); -inf where no class counts."""
    mean: Tensor
    """Mean slope, minus the reference."""
    log_square: Tensor
    """log sum exp(z) (slope - mean)^2."""


def moments(z: Tensor, slopes: Tensor, keep: Tensor) -> Moments:
    """The moments of classes given as ``(N, V)``: float logits, slopes, and which ones count."""
    if z.shape[1] == 0:
        empty = z.new_full(z.shape[:1], -math.inf)
        return Moments(empty, empty.exp(), empty, empty.exp(), empty)
    z, slopes = torch.where(keep, z, -math.inf), torch.where(keep, slopes, 0)
    top, where = z.max(1, keepdim=True)
    reference = slopes.gather(1, where)
    slopes = slopes - reference
    log_mass = torch.logsumexp(z, 1, keepdim=True)
    p = (z - torch.where(log_mass.isneginf(), 0, log_mass)).exp()
    # A class that does not count has slope 0, which is -reference here: 0 times it may be NaN.
    mean = (p * torch.where(keep, slopes, 0)).sum(1, keepdim=True)
    log_square = torch.logsumexp(z + 2 * (slopes - mean).abs().log(), 1)
    return Moments(top[:, 0], reference[:, 0], log_mass[:, 0], mean[:, 0], log_square)


def merge(one: Moments, other: Moments) -> Moments:
    """The moments of both sets of classes together."""
    swap = other.top > one.top
    heavy = Moments(*(torch.where(swap, b, a) for a, b in zip(one, other, strict=True)))
    light = Moments(*(torch.where(swap, a, b) for a, b in zip(one, other, strict=True)))
    log_mass = torch.logaddexp(heavy.log_mass, light.log_mass)
    nothing = light.log_mass.isneginf()  # there, what is left of the slopes says nothing
    apart = (light.reference - heavy.reference) + (light.mean - heavy.mean)
    apart = torch.where(nothing, 0, apart)
    share = torch.where(nothing, 0, (light.log_mass - log_mass).exp())
    between = 2 * apart.abs().log() + heavy.log_mass + light.log_mass - log_mass
    between = torch.where(nothing, -math.inf, between)
    log_square = torch.logsumexp(torch.stack([heavy.log_square, light.log_square, between]), 0)
    return Moments(heavy.top, heavy.reference, log_mass, heavy.mean + apart * share, log_square)


def rho_from_moments(m: Moments, width: Tensor) -> Tensor:
    """`rho_var` from the moments of all classes and the spread of their slopes, ``(N,)``."""
    # A row without any class has no variance; without slopes the bound is inf whatever log_s is.
    log_mass = torch.where(m.log_mass.isneginf(), 0, m.log_mass)
    log_s = m.log_square - log_mass - 2 * torch.where(width > 0, width, 1).log()
    corner = (math.log(2 / _PI_SQUARED) - log_s).clamp(min=0)
    w = _lambert_of_exp(-log_s)
    inner = torch.where(
        corner <= _PI_SQUARED / 2,
        torch.hypot(corner, torch.full_like(corner, math.pi)),
        (w * (w + 2)).sqrt(),
    )
    return _per_width(inner, width)


def extremes(delta: Tensor, keep: Tensor | None) -> tuple[Tensor, Tensor]:
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


def width_of(high: Tensor, low: Tensor) -> Tensor:
    """high - low; 0 where nothing was kept; inf where a NaN hid the answer."""
    width = torch.where(high < low, 0, high - low)
    return torch.where(width.isnan(), math.inf, width)


def _per_width(bound: Tensor, width: Tensor) -> Tensor:
    """bound / width; inf without slopes, 0 (no step is safe) where a NaN hid the answer."""
    radius = torch.where(width > 0, bound / width, math.inf)
    return torch.where(radius.isnan(), 0, radius)


def _checked(z: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor]:
    if z.shape != slopes.shape or z.ndim != 2 or not z.shape[1]:
        raise ValueError(
            f"Logits and slopes must both be (N, V) with V of at least 1, got {tuple(z.shape)} and "
            f"{tuple(slopes.shape)}."
        )
    return _at_least_float32(z), _at_least_float32(slopes)


def _unit_slopes(z: Tensor, slopes: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Logits, slopes scaled to a spread of 1, and their spread; masked classes made harmless."""
    z, slopes = _checked(z, slopes)
    keep = ~z.isneginf()
    width = spread(slopes, keep)
    top = slopes.gather(1, z.argmax(1, keepdim=True))
    slopes = torch.where(keep, slopes, top)
    unit = (slopes - top) / torch.where(width > 0, width, 1)[:, None]
    return torch.where(keep.any(1, keepdim=True), z, 0), unit, width


def _even_odds(margin: Tensor, slope: Tensor) -> Tensor:
    """Smallest u >= 0, ``(N,)``, at which ``sum_j exp(u slope_j - margin_j) >= 1``, from below.

    The logarithm f of the sum is convex: a tangent from above the root stays above it, a chord
    across it ends below, and together they close in quadratically. inf if there is no root.
    """
    rising = (slope > 0) & margin.isfinite()
    # At the latest where one class alone overtakes; up to there no exponent is above 0.
    crossing = torch.where(rising, margin / torch.where(rising, slope, 1), math.inf)
    high = crossing.amin(1)
    reachable = high.isfinite()
    high = torch.where(reachable, high, 0)
    low = torch.zeros_like(high)
    exponents = torch.where(margin.isfinite(), -margin, -math.inf)
    f_low = torch.logsumexp(exponents, 1)
    already = f_low >= 0
    # A little short of where the chord ends: at the root itself rounding decides the sign.
    slack = 8 * torch.finfo(margin.dtype).eps
    for _ in range(10 if margin.dtype == torch.float64 else 6):
        at_high = exponents + high[:, None] * slope
        f_high = torch.logsumexp(at_high, 1)
        steep = ((at_high - f_high[:, None]).exp() * slope).sum(1)
        chord = low + (high - low) * f_low / (f_low - f_high.clamp(min=0)) - slack * high
        tangent = high - f_high / steep
        high = torch.where((tangent >= low) & (tangent <= high), tangent, high)
        chord = torch.where((chord >= low) & (chord <= high), chord, low)
        f_chord = torch.logsumexp(exponents + chord[:, None] * slope, 1)
        below = f_chord < 0
        low, high = torch.where(below, chord, low), torch.where(below, high, chord)
        f_low = torch.where(below, f_chord, f_low)
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
