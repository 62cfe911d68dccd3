# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What metrics of class probabilities ask of their input, and rows that do not count made zero."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.calibration.sum_metric import SLACK
from lightning_losses.metrics.calibration.top_label import counting

#: How far from 1 the probabilities of a row may sum: bfloat16 rounds each by up to 2^-9.
SUM_SLACK = 2.0**-5


class ClassRows(NamedTuple):
    """Rows to add up: those that do not count are 0, of class 0."""

    probabilities: Tensor
    """`(N, C)`."""
    target: Tensor
    """`(N,)` int64."""
    keep: Tensor
    """`(N,)` bool."""
    skipped: Tensor
    """How many should have counted and could not, 0-dim int64."""


def class_rows(
    who: str,
    probabilities: Tensor,
    target: Tensor,
    valid: Tensor | None,
    most: int | None = None,
) -> ClassRows:
    """Check `(N, C)` probabilities, `(N,)` classes and `(N,)` valid; see `ClassRows`.

    Raises ValueError for shapes and dtypes; on a CPU, for classes without a column and for rows
    that are no probabilities (logits, percent). Elsewhere, where asking would wait for the device,
    those rows are skipped and counted, as rows with a NaN are everywhere.
    """
    if (
        probabilities.ndim != 2
        or not probabilities.is_floating_point()
        or not 0 < probabilities.shape[1] <= (most or probabilities.shape[1])
    ):
        bound = "" if most is None else f" with C at most max_classes={most}"
        raise ValueError(
            f"{who} needs probabilities (N, C) float{bound}, found {probabilities.dtype} "
            f"{tuple(probabilities.shape)}; write softmax(-1) of logits (N, C)"
        )
    if target.shape != probabilities.shape[:1] or target.is_floating_point():
        raise ValueError(
            f"{who} needs classes (N,) int64 for probabilities {tuple(probabilities.shape)}, found "
            f"{target.dtype} {tuple(target.shape)}; write target.squeeze(1) for (N, 1), .argmax(1) "
            "for one-hot, .long() for numbers"
        )
    counts = counting(valid, target, who)
    target = target.long()
    p = probabilities.detach().to(torch.promote_types(probabilities.dtype, torch.float32))
    known = (target >= 0) & (target < p.shape[1])
    usable = (p >= -SLACK) & (p <= 1 + SLACK) & ((p.sum(1) - 1).abs() <= SUM_SLACK)[:, None]
    usable = usable.all(1)
    if p.device.type == "cpu":
        unknown, no_rows = counts & ~known, counts & ~usable & ~p.isnan().any(1)
        if bool(unknown.any()):
            raise ValueError(
                f"{who} got {p.shape[1]} columns and class {target[unknown][0].item()}: write "
                "valid=target >= 0 for rows that do not count, target - 1 for labels from 1"
            )
        if bool(no_rows.any()):
            row = p[no_rows][0]
            raise ValueError(
                f"{who} needs rows of probabilities that sum to 1, found one from "
                f"{float(row.min()):.6g} to {float(row.max()):.6g} that sums to "
                f"{float(row.sum()):.6g}; write softmax(-1) of logits"
            )
    keep = counts & known & usable
    return ClassRows(
        probabilities=torch.where(keep[:, None], p, 0).clamp(0, 1),
        target=torch.where(keep, target, 0),
        keep=keep,
        skipped=(counts & ~keep).sum(),
    )
