# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses between features, and distillation."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import Deviates, adapter, evaluate
from lightning_losses.losses import (
    CLIP,
    BarlowTwins,
    Circle,
    Contrastive,
    KnowledgeDistillation,
    MultiSimilarity,
    NTXent,
    SigLIP,
    SupCon,
    TripletMargin,
)

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


@adapter("contrastive_pairs")
def contrastive(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "avg_nonzero per term, summed"
    loss = Contrastive(positive_margin=params["pos_margin"], negative_margin=params["neg_margin"])
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("triplet_margin")
def triplet_margin(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "avg_nonzero"
    assert params["all_triplets"] is True
    loss = TripletMargin(margin=params["margin"])
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("circle")
def circle(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "avg_nonzero"
    loss = Circle(m=params["m"], gamma=params["gamma"])
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("nt_xent")
def nt_xent(inputs: Inputs, params: Inputs) -> Inputs:
    assert params.get("reduction", "mean over 2N") == "mean over 2N"
    assert params.get("n_views", 2) == 2
    loss = NTXent(temperature=params["temperature"])
    if "features" in inputs:  # the views of all samples one after the other
        features = torch.stack(inputs["features"].chunk(2), 1)
        return {"loss": evaluate(loss, features=features)}
    return {"loss": evaluate(loss, features=inputs["z0"], other_features=inputs["z1"])}


@adapter("supcon")
def supcon(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SupCon(
        temperature=params["temperature"],
        base_temperature=params["base_temperature"],
        anchors={"all": "all", "one": "first"}[params.get("contrast_mode", "all")],
    )
    return {"loss": evaluate(loss, features=inputs["features"], target=inputs["labels"])}


@adapter("barlow_twins")
def barlow_twins(inputs: Inputs, params: Inputs) -> Inputs:
    loss = BarlowTwins(redundancy=params["lambda_"], scale=params.get("scale_loss", 1.0))
    return {"loss": evaluate(loss, features=inputs["z0"], other_features=inputs["z1"])}


@adapter("clip")
def clip(inputs: Inputs, params: Inputs) -> Inputs:
    loss = CLIP(logit_scale=params["logit_scale"], learnable=False).double()
    return {"loss": evaluate(loss, features=inputs["image"], other_features=inputs["text"])}


@adapter("siglip")
def siglip(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "sum / B"
    loss = SigLIP(params["logit_scale"], params["logit_bias"], learnable=False).double()
    return {"loss": evaluate(loss, features=inputs["image"], other_features=inputs["text"])}
