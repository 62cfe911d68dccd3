# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The logits whose softmax the step predicts by, from a record that captured what makes them."""

from __future__ import annotations

from torch import Tensor

from lightning_losses.record import LossRecord
from lightning_losses.softmax import final_logits, make_problem

#: What a callback watches to use `record_logits`.
RECORD_LOGITS = ("logits", "logit_scale", "softcap", "temperature")


def record_logits(record: LossRecord) -> Tensor | None:
    """Logits `(N, C)` after scale, soft-cap and temperature, float32 at least, without graph.

    None where the step passed none with classes: hidden states and a head instead, or `(N,)`
    binary scores.
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
