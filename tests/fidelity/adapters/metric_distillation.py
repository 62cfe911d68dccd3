# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses between features, and distillation."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import Deviates, adapter, evaluate
from lightning_losses import Objective, Term
from lightning_losses.losses import (
    CLIP,
    BarlowTwins,
    BinaryCrossEntropy,
    BinaryKLDistillation,
    Circle,
    Contrastive,
    CrossEntropy,
    DarkExperience,
    DecoupledKD,
    Dist,
    KnowledgeDistillation,
    MannWhitney,
    MultilabelSoftmax,
    MultiSimilarity,
    NTXent,
    SigLIP,
    SupCon,
    TripletMargin,
)
from lightning_losses.losses.retrieval.soft_topk import log_soft_topk

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


def teacher_and_student(inputs: Inputs) -> Inputs:
    return {"logits": inputs["student"], "teacher_logits": inputs["teacher"]}


@adapter("dkd")
def dkd(inputs: Inputs, params: Inputs) -> Inputs:
    loss = DecoupledKD(params["alpha"], params["beta"], params["temperature"])
    return {"loss": evaluate(loss, **teacher_and_student(inputs), target=inputs["labels"])}


@adapter("dist")
def dist(inputs: Inputs, params: Inputs) -> Inputs:
    options = {"temperature": params.get("tau", 1.0), "eps": params.get("eps", 1e-8)}
    loss = Dist(params["beta"], params["gamma"], **options)
    return {"loss": evaluate(loss, **teacher_and_student(inputs))}


@adapter("dual_head_kd")
def dual_head_kd(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "sum/N"
    assert params["eps"] == 1e-8  # its clamp; here a log-sigmoid that needs none
    loss = BinaryKLDistillation(params["temperature"])
    named = {"aux_logits": inputs["student"], "teacher_logits": inputs["teacher"]}
    return {"loss": evaluate(loss, **named)}


@adapter("multi_aspect_kd")
def multi_aspect_kd(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "mean"
    assert params["teacher"] == "yes-probability in [0,1]"
    names = {"logits": "aspect_logits", "target": "aspect_target"}
    term = Term(BinaryCrossEntropy(), inputs=names)
    found = evaluate(
        term, aspect_logits=inputs["student_aspect"], aspect_target=inputs["teacher_aspect"]
    )
    return {"loss": found}


@adapter("dark_experience")
def dark_experience(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["mse_reduction"] == "mean over all elements"
    terms = {"ce": CrossEntropy(), "der": DarkExperience(params["alpha"])}
    record = Objective(terms)(
        inputs["outputs"],
        inputs["labels"],
        replay_logits=inputs["buf_outputs"],
        stored_logits=inputs["buf_logits"],
    )
    return {"loss": record.total}


@adapter("mann_whitney")
def mann_whitney(inputs: Inputs, params: Inputs) -> Inputs:
    negatives = {"mean over all pairs (population form)": "mean", "sum": "sum"}
    loss = MannWhitney(params["temperature"], negatives[params["reduction"]])  # type: ignore[arg-type]
    scores = torch.cat([inputs["pos"], inputs["neg"]])
    target = torch.tensor([1] * len(inputs["pos"]) + [0] * len(inputs["neg"]))
    return {"loss": evaluate(loss, logits=scores, target=target)}


def relevant(inputs: Inputs) -> torch.Tensor:
    """Multi-hot target from lists of labels, where values of 0 are padding."""
    rows, labels = inputs["sim"].shape
    target = torch.zeros(rows, labels + 1, dtype=torch.float64)
    target.scatter_(1, inputs["target_inds"], inputs["target_vals"])
    return target[:, :labels]


@adapter("decoupled_softmax")
def decoupled_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "mean over positives then rows"
    assert params["sample"] is False
    assert params["masked_value"] == -100.0  # stands for a mask: exp of it is 4e-44
    assert params["tau"] == "applied by caller (0.05)"
    return {"loss": evaluate(MultilabelSoftmax(), logits=inputs["sim"], target=relevant(inputs))}


@adapter("multilabel_softmax")
def multilabel_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "SUM over positives, mean over rows"
    loss = MultilabelSoftmax(others="all", positives="sum")
    return {"loss": evaluate(loss, logits=inputs["sim"], target=relevant(inputs))}


@adapter("bce_all_labels")
def bce_all_labels(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["reduction"] == "sum / (B*L)"
    return {"loss": evaluate(BinaryCrossEntropy(), logits=inputs["sim"], target=relevant(inputs))}


@adapter("soft_topk")
def soft_topk(inputs: Inputs, params: Inputs) -> Inputs:
    assert params["n_iter"] == 60  # halvings: the search ends where float64 does
    k = torch.full((len(inputs["xs"]),), params["k"])
    return {"loss": log_soft_topk(inputs["xs"], k, params["alpha"]).sum()}
