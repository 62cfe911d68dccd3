# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The logits whose softmax the step predicts by, from a record that captured what makes them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.record import LossRecord

#: What a callback watches to use `plain_logits`.
PLAIN_LOGITS = ("logits", "logit_scale", "softcap", "temperature")


def plain_logits(record: LossRecord) -> Tensor | None:
    """Logits `(N, C)` after scale, soft-cap and temperature, float32 at least, without graph.

    None where the step passed none with classes: hidden states and a head instead, or `(N,)`
    binary scores.
    """
    logits = record.captured.get("logits")
    if not isinstance(logits, Tensor) or logits.ndim != 2:
        return None
    z: Tensor = logits.to(torch.promote_types(logits.dtype, torch.float32))
    z = z * record.captured.get("logit_scale", 1.0)
    softcap, temperature = (record.captured.get(name) for name in ("softcap", "temperature"))
    if softcap is not None:
        z = softcap * torch.tanh(z / softcap)
    return z if temperature is None else z / temperature[:, None]
