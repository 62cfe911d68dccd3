# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses between features, and distillation."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import Deviates, adapter, evaluate
from lightning_losses.losses import KnowledgeDistillation, MultiSimilarity

Inputs = dict[str, Any]


@adapter("multi_similarity")
def multi_similarity(inputs: Inputs, params: Inputs) -> Inputs:
    features, target = inputs["embeddings"], inputs["labels"]
    loss = MultiSimilarity(
        alpha=params["alpha"],
        beta=params["beta"],
        base=params["base"],
        miner_epsilon=params.get("miner_epsilon"),  # the library mines only if told to
    )
    # "sum/batch" is the mean over anchors, those without pairs included; so is the library's.
    found = {"loss": evaluate(loss, features=features, target=target)}
    if "self_pair_filter" in params:
        unit = torch.nn.functional.normalize(features.detach(), dim=1)
        same = (target[:, None] == target).fill_diagonal_(False)
        if bool((same & (unit @ unit.T >= 1 - 1e-5)).any()):
            raise Deviates("official code drops a duplicate as if it were the row itself", found)
    return found


@adapter("kd")
def kd(inputs: Inputs, params: Inputs) -> Inputs:
    assert params.get("reduction", "batchmean") == "batchmean"
    assert params.get("scale", "T^2") == "T^2"
    loss = KnowledgeDistillation(temperature=params["temperature"])
    named = {"logits": inputs["student"], "teacher_logits": inputs["teacher"]}
    return {"loss": evaluate(loss, **named)}
