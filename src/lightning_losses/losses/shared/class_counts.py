# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers of training examples, as several losses take them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def checked_counts(class_counts: Sequence[float] | Tensor) -> Tensor:
    """``(C,)`` float64 on the CPU. Raises ValueError unless every class has an example."""
    counts = torch.as_tensor(class_counts, dtype=torch.float64, device="cpu")
    if counts.ndim != 1 or not bool((counts >= 1).all()):
        raise ValueError(
            f"class_counts must be one number a class, at least 1, got {counts.tolist()}: a "
            "class without examples would get an infinite weight; leave it out of the logits."
        )
    return counts


def require_counts(made: tuple[float, ...], key: str) -> tuple[float, ...]:
    """Complain of counts that were never given; a config composes without them."""
    if not made:
        raise ValueError(
            f"{key} needs the training examples of each class: write "
            f"'loss.{key}.class_counts=[900,90,10]', or class_counts=... in Python "
            "(torch.bincount(labels).tolist())."
        )
    return made
