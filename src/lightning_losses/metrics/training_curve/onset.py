# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`onset_step`: when a growing quantity will reach a threshold, if it may be said at all."""

from __future__ import annotations

import math
from collections.abc import Sequence

#: Fewer points have a line through them by chance.
FEWEST = 8
#: Slope over its standard error below which nothing is said to grow.
SIGNIFICANT = 4.0
#: How far ahead a line is believed, in lengths of the window that it was fitted on.
HORIZON = 10.0


def onset_step(steps: Sequence[float], values: Sequence[float], threshold: float) -> float | None:
    """Step at which ``values`` reach ``threshold``: a straight line through their logarithms.

    None where the values do not tell: fewer than 8 positive finite values, no growth beyond four
    standard errors of the slope, or a threshold further off than ten times the fitted window. A
    value that is at the threshold already gives its own step.

    Args:
        steps: increasing.
        values: one a step; those that are not positive and finite are left out, but for inf, which
            is beyond any threshold.
        threshold: positive.

    Raises:
        ValueError: if the lengths differ, or the threshold is not positive.
    """
    if len(steps) != len(values) or not threshold > 0:
        raise ValueError(
            f"onset_step needs as many values as steps and a positive threshold, got {len(steps)} "
            f"steps, {len(values)} values, threshold {threshold}."
        )
    if values and values[-1] >= threshold:
        return float(steps[-1])
    points = [
        (s, math.log(v)) for s, v in zip(steps, values, strict=True) if v > 0 and math.isfinite(v)
    ]
    n = len(points)
    if n < FEWEST:
        return None
    x_mean = sum(x for x, _ in points) / n
    y_mean = sum(y for _, y in points) / n
    sxx = sum((x - x_mean) ** 2 for x, _ in points)
    if sxx == 0:
        return None
    slope = sum((x - x_mean) * (y - y_mean) for x, y in points) / sxx
    residual = sum((y - y_mean - slope * (x - x_mean)) ** 2 for x, y in points)
    error = math.sqrt(residual / (n - 2) / sxx)
    # A line without any residual still has the rounding of its logarithms.
    if slope <= max(SIGNIFICANT * error, 1e-12):
        return None
    last, span = points[-1][0], points[-1][0] - points[0][0]
    step = x_mean + (math.log(threshold) - y_mean) / slope
    return max(step, last) if step <= last + HORIZON * span else None
