# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The exact distance to the nearest singularity of a row's loss, found by counting zeros.

For diagnosis of a few rows, offline: milliseconds to seconds a row. The bounds of
`lightning_losses.metrics.step_radius.bounds` are for training.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from lightning_losses.metrics.step_radius.bounds import rho_a, rho_dom, rho_var

#: Neighbouring points of a circle must not differ by a larger angle of the sum than this.
ANGLE = math.pi / 3

#: First distance of points, where the phase of no term turns by more than half of it.
STEP = 0.2


def exact_radius(logits: Tensor, direction: Tensor) -> Tensor:
    """Smallest ``|t|`` with ``sum_k exp(logits_k + t direction_k) = 0``, ``(N,)`` float64.

    The sum's zeros within a disc are counted by how often it winds around 0 (argument principle);
    the disc grows from a bound until it holds one, is narrowed to a part in a thousand, and
    Newton's method finds the zero at its edge. Two classes have a closed form. A double zero is
    good to about 5 digits, others to 14. The radius of a batch's mean loss is the smallest
    (P. Sao, arXiv 2603.13552); leave out rows that do not count.

    Args:
        logits: ``(N, V)``, -inf for masked classes.
        direction: ``(N, V)``, the slopes of the logits.

    Returns:
        ``(N,)`` in units of t, inf for rows whose slopes are all equal; on the CPU.

    Raises:
        ValueError: if shapes differ, or a logit or slope of a class that counts is not finite.
        ArithmeticError: if no zero was found; the message has the row and what is known.

    Examples:
        >>> exact_radius(torch.tensor([[0.0, 0.0]]), torch.tensor([[1.0, -1.0]]))  # pi / 2
        tensor([1.5708], dtype=torch.float64)
    """
    if logits.ndim != 2 or logits.shape != direction.shape:
        raise ValueError(
            f"Logits and direction must both be (N, V), got {tuple(logits.shape)} and "
            f"{tuple(direction.shape)}."
        )
    rows = []
    for number, (z, a) in enumerate(zip(logits, direction, strict=True)):
        keep = ~z.detach().isneginf()
        z, a = (x.detach()[keep].double().cpu() for x in (z, a))
        if not (z.isfinite().all() and a.isfinite().all()):
            raise ValueError(f"Row {number} has logits or slopes that are not finite.")
        rows.append(_of_row(z, a, number))
    return torch.tensor(rows, dtype=torch.float64)


def _of_row(z: Tensor, a: Tensor, number: int) -> float:
    width = float(a.max() - a.min()) if len(a) else 0.0
    if width == 0:
        return math.inf
    if len(z) == 2:
        return math.hypot(float(z[1] - z[0]), math.pi) / width
    # A common shift of logits or slopes moves no zero; slopes of a spread of 1 set the scale.
    z, a = z - z.max(), (a - (a.max() + a.min()) / 2) / width
    bounds = [f(z[None], a[None]) for f in (rho_dom, rho_var)] + [rho_a(a[None])]
    low = high = max(float(bound) for bound in bounds) * (1 - 1e-9)
    for _ in range(200):
        low, high = high, 1.25 * high
        if _zeros_within(z, a, high):
            break
    else:
        raise ArithmeticError(f"Row {number} has no zero below t = {high / width:.3g}.")
    while high / low > 1 + 1e-3:
        middle = math.sqrt(low * high)
        if _zeros_within(z, a, middle):
            high = middle
        else:
            low = middle
    found = _newton(z, a, low, high)
    if math.isnan(found) or _zeros_within(z, a, 0.999 * found):
        raise ArithmeticError(
            f"Row {number} has a zero between t = {low / width:.6g} and {high / width:.6g} that "
            "Newton's method did not find."
        )
    return found / width


def _sum(z: Tensor, a: Tensor, t: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The sum over classes and its derivative at each t, and the sum of magnitudes, all scaled."""
    sums: list[tuple[Tensor, Tensor, Tensor]] = []
    for part in t.tensor_split(1 + len(t) * len(z) // 2**20):
        exponents = z + part[:, None] * a
        terms = (exponents - exponents.real.amax(1, keepdim=True)).exp()
        sums.append((terms.sum(1), (terms * a).sum(1), terms.abs().sum(1)))
    value, slope, size = (torch.cat(each) for each in zip(*sums, strict=True))
    return value, slope, size


def _arc(radius: float, angle: Tensor) -> Tensor:
    return torch.polar(torch.full_like(angle, radius), angle)


def _half_circle(radius: float, least: int) -> Tensor:
    count = max(least, math.ceil(math.pi * radius / STEP))
    return torch.linspace(0, math.pi, count + 1, dtype=torch.float64)


def _zeros_within(z: Tensor, a: Tensor, radius: float) -> int:
    """How many zeros the disc holds: the sum is real on the axis, so half a turn tells all."""
    angle = _half_circle(radius, 64)
    value, slope, _ = _sum(z, a, _arc(radius, angle))
    while True:
        turn = (value[1:] * value[:-1].conj()).angle()
        # By the slope as well: two zeros close to the circle turn it by a whole round unseen.
        rate = slope.abs() / value.abs().clamp(min=1e-300)
        gap = angle.diff()
        change = radius * gap * torch.maximum(rate[1:], rate[:-1])
        wide = ((turn.abs() > ANGLE) | (change > 1)) & (gap > 1e-12)
        if not wide.any():
            return round(float(turn.sum()) / math.pi)
        between = (angle[:-1] + angle[1:])[wide] / 2
        new_value, new_slope, _ = _sum(z, a, _arc(radius, between))
        angle, order = torch.cat([angle, between]).sort()
        value = torch.cat([value, new_value])[order]
        slope = torch.cat([slope, new_slope])[order]


def _newton(z: Tensor, a: Tensor, low: float, high: float) -> float:
    """The smallest modulus of a zero near the circle; NaN if there is none."""
    middle = math.sqrt(low * high)
    t = _arc(middle, _half_circle(middle, 256))
    value, _, size = _sum(z, a, t)
    t = t[(value.abs() / size).argsort()[:256]]  # where the terms cancel best
    for _ in range(60):
        value, slope, _ = _sum(z, a, t)
        step = torch.where(value == 0, 0, value / slope)
        t = t - step / step.abs().clamp(min=1)  # by 1 at most: a zero is within 1e-3
        t = t[t.isfinite() & (t.abs() < 2 * high)]
        if not len(t):
            return math.nan
    value, _, size = _sum(z, a, t)
    near = (value.abs() < 1e-9 * size) & (t.abs() > low * 0.999) & (t.abs() < high * 1.001)
    return float(t[near].abs().min()) if near.any() else math.nan
