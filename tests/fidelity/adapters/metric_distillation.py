# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses between features, and distillation."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.table import Deviates, adapter, evaluate, only
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
    # "sum/batch" is the mean over anchors, those without pairs included; so is the library's.
    only(params, "reduction", "mean", "sum/batch")
    only(params, "miner", None)
    official = params.get("self_pair_filter") is not None
    only(params, "self_pair_filter", None, "sim<1-1e-5")
    alpha, beta = params.get("alpha", 2.0), params.get("beta", 50.0)
    base, epsilon = params.get("base", 0.5), params.get("miner_epsilon")
    loss = MultiSimilarity(alpha=alpha, beta=beta, base=base, miner_epsilon=epsilon)
    found = {"loss": evaluate(loss, features=features, target=target)}
    if official:
        unit = torch.nn.functional.normalize(features, dim=1)
        same = (target[:, None] == target).fill_diagonal_(False)
        if bool((same & (unit @ unit.T >= 1 - 1e-5)).any()):
            ours = pair_by_pair(unit, target, alpha, beta, base, epsilon)
            raise Deviates(
                "official code drops a duplicate as if it were the row itself",
                found,
                {"loss": ours, "backward": ours},
            )
    return found


def pair_by_pair(
    unit: Tensor, target: Tensor, alpha: float, beta: float, base: float, epsilon: float | None
) -> Tensor:
    """Multi-similarity where only the row itself is no pair of a row; the mean over rows."""
    s = unit @ unit.T
    losses = []
    for i in range(len(unit)):
        others = [j for j in range(len(unit)) if j != i]
        near = [s[i, j] for j in others if target[j] == target[i]]
        far = [s[i, j] for j in others if target[j] != target[i]]
        if epsilon is not None:
            if not near or not far:
                near = far = []
            hardest, nearest = (max(far), min(near)) if far else (0.0, 0.0)
            near = [x for x in near if x - epsilon < hardest]
            far = [x for x in far if x + epsilon > nearest]
        zero = s[i, i] * 0
        up = sum(((-alpha * (x - base)).exp() for x in near), zero)
        down = sum(((beta * (x - base)).exp() for x in far), zero)
        losses.append(up.log1p() / alpha + down.log1p() / beta)
    return torch.stack(losses).mean()


@adapter("kd")
def kd(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "batchmean")
    only(params, "scale", "T^2")
    loss = KnowledgeDistillation(temperature=params.get("temperature", 4.0))
    named = {"logits": inputs["student"], "teacher_logits": inputs["teacher"]}
    return {"loss": evaluate(loss, **named)}


@adapter("contrastive_pairs")
def contrastive(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "avg_nonzero per term, summed")
    loss = Contrastive(
        positive_margin=params.get("pos_margin", 0), negative_margin=params.get("neg_margin", 1)
    )
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("triplet_margin")
def triplet_margin(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "avg_nonzero")
    only(params, "all_triplets", True)
    loss = TripletMargin(margin=params.get("margin", 0.05))
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("circle")
def circle(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "avg_nonzero")
    loss = Circle(m=params.get("m", 0.4), gamma=params.get("gamma", 80))
    return {"loss": evaluate(loss, features=inputs["embeddings"], target=inputs["labels"])}


@adapter("nt_xent")
def nt_xent(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean over 2N")
    only(params, "n_views", 2)
    loss = NTXent(temperature=params.get("temperature", 0.07))
    if "features" in inputs:  # the views of all samples one after the other
        features = torch.stack(inputs["features"].chunk(2), 1)
        return {"loss": evaluate(loss, features=features)}
    return {"loss": evaluate(loss, features=inputs["z0"], other_features=inputs["z1"])}


@adapter("supcon")
def supcon(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "contrast_mode", "all", "one")
    anchors: Any = {"all": "all", "one": "first"}[params.get("contrast_mode", "all")]
    loss = SupCon(
        temperature=params.get("temperature", 0.07),
        base_temperature=params.get("base_temperature", 0.07),
        anchors=anchors,
    )
    return {"loss": evaluate(loss, features=inputs["features"], target=inputs["labels"])}


@adapter("barlow_twins")
def barlow_twins(inputs: Inputs, params: Inputs) -> Inputs:
    loss = BarlowTwins(redundancy=params.get("lambda_", 0.005), scale=params.get("scale_loss", 1.0))
    return {"loss": evaluate(loss, features=inputs["z0"], other_features=inputs["z1"])}


@adapter("clip")
def clip(inputs: Inputs, params: Inputs) -> Inputs:
    loss = CLIP(logit_scale=params.get("logit_scale", 1 / 0.07), learnable=False).double()
    return {"loss": evaluate(loss, features=inputs["image"], other_features=inputs["text"])}


@adapter("siglip")
def siglip(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "sum / B")
    loss = SigLIP(
        params.get("logit_scale", 10.0), params.get("logit_bias", -10.0), learnable=False
    ).double()
    return {"loss": evaluate(loss, features=inputs["image"], other_features=inputs["text"])}


def teacher_and_student(inputs: Inputs) -> Inputs:
    return {"logits": inputs["student"], "teacher_logits": inputs["teacher"]}


@adapter("dkd")
def dkd(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "mask_offset", -1000)  # the source's -inf; here the target's column is left out
    loss = DecoupledKD(params["alpha"], params["beta"], params["temperature"])
    return {"loss": evaluate(loss, **teacher_and_student(inputs), target=inputs["labels"])}


@adapter("dist")
def dist(inputs: Inputs, params: Inputs) -> Inputs:
    options = {"temperature": params.get("tau", 1.0), "eps": params.get("eps", 1e-8)}
    loss = Dist(params.get("beta", 1.0), params.get("gamma", 1.0), **options)
    return {"loss": evaluate(loss, **teacher_and_student(inputs))}


@adapter("dual_head_kd")
def dual_head_kd(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "sum/N")
    only(params, "eps", 1e-8)  # its clamp; here a log-sigmoid that needs none
    loss = BinaryKLDistillation(params.get("temperature", 2))
    named = {"aux_logits": inputs["student"], "teacher_logits": inputs["teacher"]}
    return {"loss": evaluate(loss, **named)}


@adapter("multi_aspect_kd")
def multi_aspect_kd(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean")
    only(params, "teacher", "yes-probability in [0,1]")
    names = {"logits": "aspect_logits", "target": "aspect_target"}
    term = Term(BinaryCrossEntropy(), inputs=names)
    found = evaluate(
        term, aspect_logits=inputs["student_aspect"], aspect_target=inputs["teacher_aspect"]
    )
    return {"loss": found}


@adapter("dark_experience")
def dark_experience(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "mse_reduction", "mean over all elements")
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
    only(params, "reduction", *negatives)
    reduction: Any = negatives[params.get("reduction", "mean over all pairs (population form)")]
    loss = MannWhitney(params.get("temperature", 1.0), reduction)
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
    only(params, "reduction", "mean over positives then rows")
    only(params, "sample", False)
    only(params, "masked_value", -100.0)  # stands for a mask: exp of it is 4e-44
    only(params, "tau", "applied by caller (0.05)")
    return {"loss": evaluate(MultilabelSoftmax(), logits=inputs["sim"], target=relevant(inputs))}


@adapter("multilabel_softmax")
def multilabel_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "SUM over positives, mean over rows")
    loss = MultilabelSoftmax(others="all", positives="sum")
    return {"loss": evaluate(loss, logits=inputs["sim"], target=relevant(inputs))}


@adapter("bce_all_labels")
def bce_all_labels(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "sum / (B*L)")
    return {"loss": evaluate(BinaryCrossEntropy(), logits=inputs["sim"], target=relevant(inputs))}


@adapter("soft_topk")
def soft_topk(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "n_iter", 60)  # halvings: the search ends where float64 does
    k = torch.full((len(inputs["xs"]),), params["k"])
    return {"loss": log_soft_topk(inputs["xs"], k, params["alpha"]).sum()}
