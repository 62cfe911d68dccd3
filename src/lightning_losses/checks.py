# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What was wrong with a batch: asked only after something failed, so a good step pays nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor


def explain(
    named: Mapping[str, Any], ignore_index: int, class_target: bool = True
) -> ValueError | None:
    """The error that names the offending tensor, or None if the tensors look sound.

    `class_target`: whether an integer target is a column of the logits.
    """
    found = _not_a_number(named) or _temperature(named)
    return found or (_target_range(named, ignore_index) if class_target else None)


def _temperature(named: Mapping[str, Any]) -> ValueError | None:
    value = named.get("temperature")
    if not isinstance(value, Tensor) or bool((value > 0).all()):
        return None
    return ValueError(f"temperature must be positive, found {float(value.min())}.")


def _target_range(named: Mapping[str, Any], ignore_index: int) -> ValueError | None:
    target = named.get("target")
    logits, head = named.get("logits"), named.get("head_weight")
    if not isinstance(target, Tensor) or target.is_floating_point():
        return None
    if isinstance(logits, Tensor) and logits.ndim > 1:
        classes = logits.shape[-1]
    elif isinstance(head, Tensor):
        held = named.get("class_range")
        classes = head.shape[0] if held is None else held.num_classes
    else:
        return None
    used = target[target != ignore_index]
    wrong = used[(used < 0) | (used >= classes)]
    if not wrong.numel():
        return None
    return ValueError(
        f"target must be in [0, {classes}) or ignore_index={ignore_index}; found "
        f"{int(wrong[0])} and {wrong.numel() - 1} more out of range. For a padding label p write "
        f"Objective(..., ignore_index=p); for labels from 1 write target - 1."
    )


def _not_a_number(named: Mapping[str, Any]) -> ValueError | None:
    for name, value in named.items():
        if not isinstance(value, Tensor) or not value.is_floating_point():
            continue
        bad = torch.isnan(value) | (value == torch.inf)  # -inf is a masked class
        if bool(bad.any()):
            rows = bad.reshape(bad.shape[0], -1).any(1) if bad.ndim else bad.reshape(1)
            return ValueError(
                f"{name} {tuple(value.shape)} holds NaN or +inf in {int(rows.sum())} of "
                f"{len(rows)} rows, first in row {int(rows.nonzero()[0])}. Look at what made it (a "
                "learning rate too high, 0/0, log of 0); Trainer(detect_anomaly=True) finds the "
                "operation."
            )
    return None
