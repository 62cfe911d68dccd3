# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How far choosing the best of several samples moves away from the policy that drew them."""

from __future__ import annotations

import math


def best_of_n_kl_bound(samples: int) -> float:
    """The most that KL(best of n || policy) can be, in nats: ``log n - (n - 1) / n``.

    A bound, not the value (Beirami et al., arXiv 2401.01879): where many samples are equal, or few
    different ones are possible, the divergence is smaller.

    Raises:
        ValueError: no sample.

    Examples:
        >>> best_of_n_kl_bound(1), round(best_of_n_kl_bound(16), 3)
        (0.0, 1.835)
    """
    if samples < 1:
        raise ValueError(f"samples must be at least 1, got {samples}.")
    return math.log(samples) - (samples - 1) / samples
