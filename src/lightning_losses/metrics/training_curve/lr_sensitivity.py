# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`lr_sensitivity`: how much is lost, on average, by not knowing the best learning rate."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence


def lr_sensitivity(
    losses: Sequence[float],
    initial_loss: float,
    rates: Sequence[float] | None = None,
) -> float:
    """Mean over a sweep of learning rates of ``min(loss, initial_loss) - best``.

    "Learning rate sensitivity" of Wortsman et al. (arXiv 2309.14322): 0 if every rate ends at the
    best loss. A run that ended in NaN counts as one that has learned nothing.

    Args:
        losses: final loss of each run, in any unit, which is that of the result.
        initial_loss: loss before training.
        rates: learning rates, increasing. With them the mean is taken over the logarithm of the
            rate (trapezoids), which matters where they are not evenly spaced in it; without, every
            run counts the same, as in the paper.

    Raises:
        ValueError: no run that ended in a number, or rates that are not as many, positive and
            increasing.

    Examples:
        >>> losses = [2.0, 2.1, float("nan")]
        >>> round(lr_sensitivity(losses, initial_loss=4.0), 3)  # (0 + 0.1 + 2) / 3
        0.7
    """
    capped = [initial_loss if math.isnan(loss) else min(loss, initial_loss) for loss in losses]
    finite = [loss for loss in losses if math.isfinite(loss)]
    if not finite:
        raise ValueError(f"lr_sensitivity needs a run that ended in a number, got {list(losses)}.")
    best = min(capped)
    lost = [loss - best for loss in capped]
    if rates is None:
        return math.fsum(lost) / len(lost)
    rising = all(a < b for a, b in itertools.pairwise(rates))
    if len(rates) != len(lost) or len(rates) < 2 or not rising or rates[0] <= 0:
        raise ValueError(
            f"rates must be as many as losses ({len(lost)}), at least two, positive and "
            f"increasing, got {list(rates)}."
        )
    logs = [math.log(rate) for rate in rates]
    areas = [(logs[i] - logs[i - 1]) * (lost[i] + lost[i - 1]) / 2 for i in range(1, len(logs))]
    return math.fsum(areas) / (logs[-1] - logs[0])
