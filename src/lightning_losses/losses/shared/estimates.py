# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Differences of what was estimated and what it should be."""

from __future__ import annotations

import torch
from torch import Tensor


def error_rows(estimate: Tensor, reference: Tensor, valid: Tensor | None) -> Tensor:
    """``estimate - reference`` as rows ``(N, D)``, 0 in rows that do not count.

    Raises ValueError unless both have one shape: one would be broadcast.
    """
    if estimate.shape != reference.shape or not estimate.ndim:
        raise ValueError(
            f"estimate {tuple(estimate.shape)} and reference {tuple(reference.shape)} must have "
            "one shape, (N, ...)."
        )
    rows = (z.flatten(1) if z.ndim > 1 else z[:, None] for z in (estimate, reference))
    x, y = rows if valid is None else (torch.where(valid[:, None], z, 0) for z in rows)
    return x - y
