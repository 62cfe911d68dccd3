# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Probabilities and labels side by side, one column for a yes-or-no question, one a class else."""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses.losses.shared.rows_math import LOWEST, log_p_and_rest
from lightning_losses.losses.shared.validation import check_binary, check_classes


class OneVsRest(NamedTuple):
    """Probabilities, what is left of 1, and labels, each ``(N, K)``, and how many questions."""

    log_p: Tensor
    log_rest: Tensor  # log(1 - p), exact where p rounds to 1
    t: Tensor
    binary: bool  # one column, yes or no


def one_vs_rest(
    logits: Tensor, target: Tensor, valid: Tensor | None = None, hard: bool = False
) -> OneVsRest:
    """Each class against the rest, from binary scores or from the softmax of several.

    Binary scores ``(N,)`` or ``(N, 1)`` and labels in [0, 1] of either shape give one column of
    sigmoids; ``(N, C)`` with class indices ``(N,)`` or soft targets ``(N, C)`` the softmax.

    Args:
        logits: ``(N,)``, ``(N, 1)`` or ``(N, C)``.
        target: see above.
        valid: rows that count ``(N,)``; targets of others become 0.
        hard: refuse labels between 0 and 1.

    Raises:
        ValueError: shapes that do not go together; on a CPU labels out of range.
    """
    z = logits[:, None] if logits.ndim == 1 else logits
    binary = z.shape[1] == 1
    if valid is not None:  # 0 times inf is NaN
        target = torch.where(valid if target.ndim == 1 else valid[:, None], target, 0)
    if target.ndim == 1 and binary:
        target = target[:, None]
    if target.ndim == 2:
        if target.shape != z.shape:
            raise ValueError(
                f"target must be (N,) or {tuple(z.shape)} beside logits {tuple(logits.shape)}, got "
                f"{tuple(target.shape)}."
            )
        check_binary(target, hard=hard)
        t = target.to(z.dtype)
    else:
        if target.is_floating_point():
            raise ValueError(
                f"target must hold class indices (int64) beside {z.shape[1]} columns of logits, "
                f"got {target.dtype}: write target.long(), or pass soft targets {tuple(z.shape)}."
            )
        check_classes(target, z.shape[1])
        t = torch.zeros_like(z).scatter(1, target.long()[:, None], 1.0)
    if binary:
        z = z.clamp(min=LOWEST)
        return OneVsRest(F.logsigmoid(z), F.logsigmoid(-z), t, True)
    return OneVsRest(*log_p_and_rest(z), t, False)


def keep(values: Tensor, valid: Tensor | None) -> Tensor:
    """``(N, K)`` values, 0 in rows that do not count."""
    return values if valid is None else torch.where(valid[:, None], values, 0.0)
