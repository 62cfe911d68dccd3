# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The logits whose softmax the step predicts by, from a record that captured what makes them."""

from __future__ import annotations

from dataclasses import replace

from torch import Tensor

from lightning_losses.record import LossRecord
from lightning_losses.softmax import final_logits, make_problem

#: What a callback watches to use `record_logits`.
RECORD_LOGITS = ("logits", "logit_scale", "softcap", "temperature")

#: What a callback watches to use `logits_of_few`.
FEW_LOGITS = (*RECORD_LOGITS, "class_range")


def record_logits(record: LossRecord) -> Tensor | None:
    """Logits `(N, C)` after scale, soft-cap and temperature, float32 at least, without graph.

    None where the step passed none with classes: hidden states and a head instead, `(N,)`
    binary scores, or those of some classes only.
    """
    logits = record.captured.get("logits")
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        return None
    read = record.captured.get
    return final_logits(
        make_problem(
            logits=logits,
            logit_scale=read("logit_scale", 1.0),
            softcap=read("softcap"),
            temperature=read("temperature"),
        )
    )


def logits_of_few(record: LossRecord, most: int) -> Tensor | None:
    """`record_logits` of at most so many classes, gathered where they are split over ranks.

    For a callback that watches `class_range` too. Every rank that shares these rows must come here.
    """
    logits, held = record_logits(record), record.captured.get("class_range")
    part = record.captured.get("slices", {}).get("logits")
    if held is not None and part is not None and held.num_classes <= most:
        part = record_logits(replace(record, captured=record.captured | {"logits": part}))
        return None if part is None else held.whole(part)
    return None if logits is None or logits.shape[1] > most else logits
