# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`entropy_law`: what reward is left to buy with entropy, R = -a e^H + b."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

#: Fewer points than this lie on a line whatever the law is.
FEWEST = 3

#: e^H must vary by at least this part of itself, or its slope is that of rounding.
LEAST_SPREAD = 1e-6


class EntropyLaw(NamedTuple):
    """The fit of ``R = -a e^H + b``; NaN where there is none."""

    a: float
    """What a reward costs: e^H must fall by 1 / a for one unit of it."""
    b: float
    ceiling: float
    """``b - a``, the reward with no entropy left."""
    r2: float
    """Part of the variance of rewards that the fit explains."""
    points: int
    """Pairs that were fitted."""
    problem: str
    """Why the law is not applicable, or empty."""


def entropy_law(entropy: Sequence[float], reward: Sequence[float]) -> EntropyLaw:
    """Least squares of rewards on e^H of the policies that earned them.

    In policy training without entropy control, reward is bought with entropy (Cui et al., "The
    Entropy Mechanism of Reinforcement Learning", arXiv 2505.22617). The ceiling is an estimate from
    where training has been, not a promise: from the first 15 % of a toy run it was 0.03 too low.

    Args:
        entropy: mean entropy in nats, one a measurement.
        reward: mean reward, in any unit, beside it. Pairs that are not finite are left out.

    Raises:
        ValueError: different lengths.
    """
    if len(entropy) != len(reward):
        raise ValueError(
            f"entropy and reward must be as many, got {len(entropy)} and {len(reward)}."
        )
    pairs = [
        (math.exp(h), float(r))
        for h, r in zip(entropy, reward, strict=True)
        if -700 < h < 700 and math.isfinite(r)  # e^710 is inf
    ]
    n, nan = len(pairs), math.nan
    if n < FEWEST:
        return EntropyLaw(nan, nan, nan, nan, n, f"{n} points; it takes {FEWEST}")
    mean_x, mean_y = (math.fsum(side) / n for side in zip(*pairs, strict=True))
    xx = math.fsum((x - mean_x) ** 2 for x, _ in pairs)
    xy = math.fsum((x - mean_x) * (y - mean_y) for x, y in pairs)
    yy = math.fsum((y - mean_y) ** 2 for _, y in pairs)
    if xx <= n * (LEAST_SPREAD * mean_x) ** 2:
        return EntropyLaw(nan, nan, nan, nan, n, "entropy has not changed")
    a = -xy / xx
    b = mean_y + a * mean_x
    r2 = xy * xy / (xx * yy) if yy else nan
    problem = "" if a > 0 else "reward does not rise as entropy falls (a <= 0)"
    return EntropyLaw(a, b, b - a, r2, n, problem)
