# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Values that cannot have been meant: NaN, infinities, labels out of range, negative weights.

Each function answers with the error to raise, or with None. They wait for the device: asked before
a loss runs only where that is free, and after something failed.
"""

from __future__ import annotations

import math
from typing import Any

from torch import Tensor

from lightning_losses.softmax import FLOATS, may_ask

#: Of these a softmax is taken along dimension 1, so that a row needs one class that is not masked.
SOFTMAX_LOGITS = ("logits", "logits_adv", "teacher_logits", "next_logits", "logit_map")


def tensors_of(value: Any) -> list[Tensor]:
    """A tensor, or those of a list, such as attention."""
    values = value if isinstance(value, (list, tuple)) else [value]
    return [one for one in values if isinstance(one, Tensor)]


def not_finite(name: str, value: Tensor, valid: Tensor | None) -> ValueError | None:
    """The error for NaN or an infinity in rows that count; among logits -inf is a masked class."""
    if value.dtype not in FLOATS or not value.numel():
        return None
    value = value.detach()
    low, high = (x.item() for x in value.aminmax())
    if -math.inf < low and high < math.inf:
        return None
    bad = ~value.isfinite()
    what = "NaN or inf"
    if "logit" in name or name.endswith("head_bias"):
        what, bad = "NaN or +inf", bad & (value != -math.inf)
    bad = _of_counted(bad, valid)
    if name in SOFTMAX_LOGITS and value.ndim > 1 and value.shape[1] > 1 and not bool(bad.any()):
        what = "-inf for every class, of which none is left,"
        bad = _of_counted((value == -math.inf).all(1, keepdim=True), valid)
    if not bool(bad.any()):
        return None
    rows = bad.reshape(len(bad), -1).any(1) if bad.ndim else bad.reshape(1)
    first = int(rows.nonzero()[0])
    return ValueError(
        f"{name} {tuple(value.shape)} holds {what} in {int(rows.sum())} of {len(rows)} rows, first "
        f"in row {first}. Look at what made it (a learning rate too high, 0/0, log of 0); "
        "Trainer(detect_anomaly=True) finds the operation."
    )


def _of_counted(bad: Tensor, valid: Tensor | None) -> Tensor:
    """What is bad in rows, images or pixels that count."""
    if valid is None or not bad.ndim:
        return bad
    if len(valid) == len(bad):
        return bad & valid.reshape(-1, *[1] * (bad.ndim - 1))
    if valid.numel() == bad.numel():
        return bad & valid.reshape(bad.shape)
    if bad.ndim > 2 and valid.numel() == bad[:, 0].numel():
        return bad & valid.reshape(bad[:, :1].shape)
    return bad


def not_positive(temperature: Tensor) -> ValueError:
    """The error for a temperature that is not positive, or infinite: then all classes are equal."""
    low, high = (float(x) for x in temperature.aminmax())
    found = high if low > 0 else low
    return ValueError(f"temperature must be positive and finite, found {found}.")


def out_of_range(target: Tensor, classes: int, ignore_index: int) -> ValueError | None:
    """Class indices out of range; rows that do not count hold 0."""
    low, high = (int(x) for x in target.aminmax())
    if low >= 0 and high < max(classes, 1):
        return None
    wrong = target[(target < 0) | (target >= classes)]
    return ValueError(
        f"target must be in [0, {classes}) or ignore_index={ignore_index}; found "
        f"{int(wrong[0])} and {wrong.numel() - 1} more out of range. For a padding label p write "
        f"Objective(..., ignore_index=p); for labels from 1 write target - 1."
    )


def check_sample_weight(weight: Tensor, divides: bool) -> None:
    """Raise ValueError, on a CPU, for weights that are NaN or infinite, and for weights below 0 if
    a mean ``divides`` by their sum.
    """
    if not weight.numel() or not may_ask(weight):
        return
    low, high = (x.item() for x in weight.detach().aminmax())
    if divides and not (low >= 0 and high < math.inf):
        raise ValueError(
            f"sample_weight must be finite and at least 0 where the mean divides by its sum, found "
            f"{low} to {high}. Weights of both signs, such as advantages, go with reduction='sum' "
            "or normalizer=."
        )
    if not -math.inf < low <= high < math.inf:
        raise ValueError(f"sample_weight must be finite, found {low} to {high}.")
