# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Training dynamics. (StableMax, whose key is also here, is with the classification losses.)"""

from __future__ import annotations

from typing import Any

from adapters.table import Term, adapter, evaluate
from lightning_losses.losses import LogsumexpPenalty
from lightning_losses.softmax import softmax_stats

Inputs = dict[str, Any]


@adapter("z_loss")
def z_loss(inputs: Inputs, params: Inputs) -> Inputs:
    term = Term(LogsumexpPenalty(), weight=inputs["coeff"])
    logits = inputs["logits"]
    return {"loss": evaluate(term, logits=logits), "log_z": softmax_stats(logits).logsumexp}
