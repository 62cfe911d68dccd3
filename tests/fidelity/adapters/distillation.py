# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses against a teacher that came with EQ-Net."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import Deviates, NotBuilt, adapter, evaluate
from lightning_losses.losses import AdaptiveAlphaDivergence, DistilledCrossEntropy

Inputs = dict[str, Any]


@adapter("adaptive_alpha_kd")
def adaptive_alpha_kd(inputs: Inputs, params: Inputs) -> Inputs:
    z, teacher = inputs["student_logits"], inputs["teacher_logits"]
    alphas = (params.get("alpha_min", -1.0), params.get("alpha_max", 1.0))
    clip = params.get("iw_clip", 5.0)
    loss = AdaptiveAlphaDivergence(*alphas, clip)
    value = evaluate(loss, logits=z, teacher_logits=teacher)
    if alphas != (-1, 1):
        raise NotBuilt(f"the divergences at alpha {alphas}, of which we have no formula here")
    # The larger one a row of the divergences at alpha -1 and 1 (which is KL(teacher || student)).
    log_p, log_q = teacher.log_softmax(1), z.detach().log_softmax(1)
    p, q = log_p.exp(), log_q.exp()
    low = (q * ((q / p).clamp(max=clip) - 1) / 2).sum(1)
    ours = torch.maximum(low, (p * (log_p - log_q)).sum(1)).mean()
    raise Deviates(
        "the source's value is a score function, of which only the gradient means something",
        {"loss": value},
        {"loss": ours},
    )


@adapter("gpg_kd")
def gpg_kd(inputs: Inputs, params: Inputs) -> Inputs:
    loss = DistilledCrossEntropy(params.get("alpha", 0.5), params.get("T", 1.0))
    named = {"logits": inputs["student_logits"], "teacher_logits": inputs["teacher_logits"]}
    return {"loss": evaluate(loss, **named, target=inputs["target"])}
