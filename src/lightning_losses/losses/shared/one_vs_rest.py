# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Probabilities and labels side by side, one column for a yes-or-no question, one a class else."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.shared.rows_math import log_softmax
from lightning_losses.losses.shared.validation import check_binary


def one_vs_rest(
    logits: Tensor, target: Tensor, valid: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Probabilities and 0/1 labels, both ``(N, K)``.

    Binary scores ``(N,)`` and labels ``(N,)`` in [0, 1] give one column of sigmoids; ``(N, C)``
    with class indices ``(N,)`` or soft targets ``(N, C)`` give the softmax. Raises ValueError for
    labels and soft targets outside [0, 1], on a CPU.
    """
    if valid is not None:  # 0 times inf is NaN
        target = torch.where(valid if target.ndim == 1 else valid[:, None], target, 0)
    if logits.ndim == 1 or target.ndim == 2:
        check_binary(target)
    if logits.ndim == 1:
        return logits.sigmoid()[:, None], target.to(logits.dtype)[:, None]
    p = log_softmax(logits).exp()
    if target.ndim == 2:
        return p, target.to(p.dtype)
    return p, torch.zeros_like(p).scatter(1, target[:, None], 1.0)


def keep(values: Tensor, valid: Tensor | None) -> Tensor:
    """``(N, K)`` values, 0 in rows that do not count."""
    return values if valid is None else torch.where(valid[:, None], values, 0.0)
