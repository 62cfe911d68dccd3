# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy of the prediction, and losses made of it."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adapters.table import Deviates, adapter
from lightning_losses.softmax import softmax_stats

Inputs = dict[str, Any]


@adapter("entropy_from_logits")
def entropy_from_logits(inputs: Inputs, params: Inputs) -> Inputs:
    logits = inputs["logits"]
    entropy = softmax_stats(logits).entropy
    found = {
        "entropy": entropy,
        "normalized": entropy / math.log(logits.shape[-1]),
        "effective_classes": entropy.exp(),
        "backward": entropy.sum(),
    }
    if bool(logits.isneginf().any()):
        ours = masked_entropy(logits)
        raise Deviates(
            "a class masked by -inf counts 0 and gets no gradient; sources give NaN",
            found,
            {
                "entropy": ours,
                "normalized": ours / math.log(logits.shape[-1]),
                "effective_classes": ours.exp(),
                "backward": ours,
            },
        )
    return found


def masked_entropy(logits: Tensor) -> Tensor:
    """The entropy of each row over the classes that are not masked."""
    rows = [row[~row.isneginf()].log_softmax(0) for row in logits.reshape(-1, logits.shape[-1])]
    ours = torch.stack([-(log_p.exp() * log_p).sum() for log_p in rows])
    return ours.reshape(logits.shape[:-1])
