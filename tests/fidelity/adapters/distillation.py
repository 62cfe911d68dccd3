# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses against a teacher that came with EQ-Net."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import adapter, evaluate
from lightning_losses.losses import AdaptiveAlphaDivergence, DistilledCrossEntropy

Inputs = dict[str, Any]


@adapter("adaptive_alpha_kd")
def adaptive_alpha_kd(inputs: Inputs, params: Inputs) -> Inputs:
    z, teacher = inputs["student_logits"], inputs["teacher_logits"]
    alphas, clip = (params["alpha_min"], params["alpha_max"]), params["iw_clip"]
    loss = AdaptiveAlphaDivergence(*alphas, clip)
    value = evaluate(loss, logits=z, teacher_logits=teacher)
    # The source's value is a score function, of which only the gradient means something.
    assert alphas == (-1, 1)
    log_p, log_q = teacher.log_softmax(1), z.detach().log_softmax(1)
    p, q, ratio = log_p.exp(), log_q.exp(), (log_p - log_q).exp()
    inverse = (1 / ratio).clamp(max=clip)
    low, high = (q * (inverse - 1) / 2).sum(1), (p * (log_p - log_q)).sum(1)
    rho = torch.where((low > high)[:, None], 0.5 - inverse, ratio)
    surrogate = -(q * rho * log_q).sum(1).mean()
    return {"loss": surrogate, "backward": value, "value": value}


@adapter("gpg_kd")
def gpg_kd(inputs: Inputs, params: Inputs) -> Inputs:
    loss = DistilledCrossEntropy(params["alpha"], params["T"])
    named = {"logits": inputs["student_logits"], "teacher_logits": inputs["teacher_logits"]}
    return {"loss": evaluate(loss, **named, target=inputs["target"])}
