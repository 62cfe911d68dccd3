# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`onset_step`: when a growing quantity will reach a threshold, if it may be said at all."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

#: Fewer points have a line through them by chance.
FEWEST = 8
#: Slope over its standard error below which nothing is said to grow; of a half of the points, which
#: is there to tell a trend from a jump, less is asked.
SIGNIFICANT, SIGNIFICANT_HALF = 4.0, 1.0
#: How far ahead a line is believed, in lengths of the window that it was fitted on.
HORIZON = 1.0
#: How far above the last value a threshold may lie: small values grow by large factors.
FARTHEST = 4.0
#: Growth of the later half of the window over the earlier one's, below which it is slowing down.
STEADY = 0.5


class Line(NamedTuple):
    """A least-squares line and the standard error of its slope."""

    x: float
    y: float
    slope: float
    error: float

    def grows(self, significant: float) -> bool:
        """Whether it rises; a line without any residual still has the rounding of its values."""
        return self.slope > max(significant * self.error, 1e-12)


def onset_step(steps: Sequence[float], values: Sequence[float], threshold: float) -> float | None:
    """Step at which ``values`` reach ``threshold``, of growth that is steady: a line in logarithms.

    Every training begins with growth that ends by itself, and whatever is fitted to that reaches
    any threshold. So a window is believed only as far ahead as it is long, only where the
    logarithms grow in both of its halves, in the later one at least half as fast as in the earlier
    one, and only up to four times the last value. The line is that of the later half.

    None where the values do not tell: fewer than 8 positive finite values, no growth of the whole
    window beyond four standard errors of its slope, growth that is slowing down, or a threshold
    further off than that. A value that is at the threshold already gives its own step.

    Args:
        steps: increasing.
        values: one a step; those that are not positive and finite are left out, but for inf, which
            is beyond any threshold.
        threshold: positive.

    Raises:
        ValueError: if the lengths differ, or the threshold is not positive.

    Examples:
        >>> steps = range(10)
        >>> growth = [1.2**step for step in steps]
        >>> round(onset_step(steps, growth, threshold=8.0), 2)
        11.41
        >>> print(onset_step(steps, growth, threshold=1000.0))  # too far to tell
        None
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
    if len(points) < FEWEST or threshold > FARTHEST * values[-1]:
        return None
    half = len(points) // 2
    whole, early, late = line(points), line(points[:half]), line(points[half:])
    halves = early.grows(SIGNIFICANT_HALF) and late.grows(SIGNIFICANT_HALF)
    if not (whole.grows(SIGNIFICANT) and halves and late.slope >= STEADY * early.slope):
        return None
    last, span = points[-1][0], points[-1][0] - points[0][0]
    step = late.x + (math.log(threshold) - late.y) / late.slope
    return max(step, last) if step <= last + HORIZON * span else None


def line(points: Sequence[tuple[float, float]]) -> Line:
    """Through at least three points; flat where all are at one place."""
    n = len(points)
    x, y = (sum(values) / n for values in zip(*points, strict=True))
    spread = sum((a - x) ** 2 for a, _ in points)
    if spread == 0:
        return Line(x, y, 0.0, math.inf)
    slope = sum((a - x) * (b - y) for a, b in points) / spread
    residual = sum((b - y - slope * (a - x)) ** 2 for a, b in points)
    return Line(x, y, slope, math.sqrt(residual / (n - 2) / spread))
