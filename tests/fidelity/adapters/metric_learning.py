# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses with centres of their own, of the ball, of clusters, and of category discovery."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters.table import NotBuilt, adapter, evaluate, only
from lightning_losses import Objective, Term
from lightning_losses.losses import (
    ICNN,
    AdaptiveMarginSoftmax,
    CrossEntropy,
    DualViewKL,
    HyperbolicContrastive,
    KernelBalancing,
    MarginCalibration,
    MetricMixup,
    PairwiseConfusion,
    ProtoTriplet,
    PrototypicalContrastive,
    SelfDistillation,
    SoftEntropy,
    UnifiedNegativePairs,
    WeightedInfoNCE,
)
from lightning_losses.losses.shared.hyperbolic import poincare_distances
from lightning_losses.losses.shared.pairs import mean_of_active
from lightning_losses.losses.shared.rows_math import unit
from lightning_losses.metrics.ood.scores import mahalanobis_score
from lightning_losses.weighting import SimilarityGap

Inputs = dict[str, Any]


def on_centers(loss: nn.Module, weight: Tensor, **named: Tensor) -> tuple[Tensor, Inputs]:
    """Total and diagnostics of a loss whose centres are the case's."""
    objective = Objective({"loss": loss})
    record = functional_call(objective, {"terms.loss.loss.weight": weight}, (), named)
    return record.total, record.diagnostics


@adapter("adaptive_margin_softmax")
def adaptive_margin_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    ways = {"default(median row)": "median_row", "mean": "mean", "median": "median"}
    if params["method_B"] not in ways:
        raise NotBuilt(f"method_B={params['method_B']!r}")
    others: Any = ways[params["method_B"]]
    loss = AdaptiveMarginSoftmax(
        *inputs["weight"].shape[::-1], params["alpha"], others, params["min_scale"]
    )
    total, told = on_centers(
        loss, inputs["weight"], features=inputs["embeddings"], target=inputs["labels"]
    )
    margin, scale = told["loss/margin"], told["loss/scale"]
    alpha = params["alpha"]
    # What the source has before scale and margin follows from these.
    median = 1 - math.log(9999999 * (1 - alpha) / alpha) / scale
    return {
        "loss": total,
        "margin": margin,
        "scale": scale,
        "median": median,
        "B": (scale * (median - margin)).exp() * (1 - alpha) / alpha,
    }


@adapter("margin_calibration")
def margin_calibration(inputs: Inputs, params: Inputs) -> Inputs:
    loss = MarginCalibration(
        *inputs["weight"].shape[::-1],
        params["scale"],
        params["margin_radians"],
        params["sin_floor"],
    )
    named = {"features": inputs["embeddings"], "target": inputs["labels"]}
    return {"loss": on_centers(loss, inputs["weight"], **named)[0]}


@adapter("unpg")
def unpg(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "head", "cosface")
    options = (params["scale"], params["margin"], params["whisker"])
    loss = UnifiedNegativePairs(*inputs["weight"].shape[::-1], *options)
    y = inputs["labels"]
    total, told = on_centers(loss, inputs["weight"], features=inputs["embeddings"], target=y)
    pairs = int((y[:, None] != y).sum()) // 2
    kept = round(float(told["loss/kept"]) * pairs)
    return {"loss": total, "kept_negatives": kept, "all_negatives": pairs}


@adapter("proto_triplet")
def proto_triplet(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "distance", "sqrt(d2+1e-6)")
    only(params, "way", len(inputs["protos"]))
    loss = ProtoTriplet(*inputs["protos"].shape[::-1], params["margin"])
    named = {"features": inputs["queries"], "target": inputs["labels"]}
    return {"loss": on_centers(loss, inputs["protos"], **named)[0]}


@adapter("icnn")
def icnn(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "omega", False)
    only(params, "ipc", 5)  # items of a class in an episode, which the value does not need
    loss = ICNN(params["k"])
    return {"loss": evaluate(loss, features=inputs["features"], target=inputs["labels"])}


@adapter("metric_mixup")
def metric_mixup(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "distance", "euclid of L2-normalised")
    only(params, "reduction", "avg_nonzero per term")
    only(params, "weight_in_total", 0.4)  # the term's weight, outside the value
    loss = MetricMixup(positive_margin=params["pos_margin"], negative_margin=params["neg_margin"])
    loss.lam = params["lam"]
    pull, push = loss.of_triples(unit(inputs["anchor"]), inputs["positive"], inputs["negative"])
    total = loss.lam * mean_of_active(pull, pull > 0)
    return {"loss": total + (1 - loss.lam) * mean_of_active(push, push > 0)}


@adapter("weighted_info_nce")
def weighted_info_nce(inputs: Inputs, params: Inputs) -> Inputs:
    clusters = torch.stack([inputs["c1"], inputs["c2"]], 1)
    only(params, "num_clusters", [int(c.max()) + 1 for c in clusters.t()])
    loss = WeightedInfoNCE(params["temperature"])
    named = {"features": inputs["anchor"], "other_features": inputs["other"]}
    return {"loss": evaluate(loss, **named, clusters=clusters)}


@adapter("prototypical_contrastive")
def prototypical_contrastive(inputs: Inputs, params: Inputs) -> Inputs:
    """The source's denominator is another constant; it has no part in the gradient."""
    only(params, "denominator", "mean over prototypes x N (rows)")
    found = evaluate(
        PrototypicalContrastive(),
        features=inputs["z"],
        target=inputs["c1"],
        ref_features=inputs["centroids"],
        ref_temperature=inputs["density"],
    )
    return {"loss": found + math.log(len(inputs["z"]) / len(inputs["centroids"]))}


@adapter("hyperbolic_contrastive")
def hyperbolic_contrastive(inputs: Inputs, params: Inputs) -> Inputs:
    features = torch.stack(inputs["features"].chunk(2), 1)
    loss = HyperbolicContrastive(params["c"], params["temperature"])
    return {"loss": evaluate(loss, features=features)}


@adapter("pairwise_confusion")
def pairwise_confusion(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "map", "expmap0+project")
    only(params, "pairs", "row i with row i+B/2")
    only(params, "divide_by", "B (not B/2)")
    features = torch.stack(inputs["features"].chunk(2), 1)
    loss = PairwiseConfusion(params["c"], arctan=params.get("distance", "atan") == "atan")
    return {"loss": evaluate(loss, features=features)}


@adapter("poincare_dist")
def poincare_dist(inputs: Inputs, params: Inputs) -> Inputs:
    return {"loss": poincare_distances(inputs["x"], inputs["y"], params["c"]).sum()}


def two_views(inputs: Inputs) -> Inputs:
    logits, other = inputs["student_output"].chunk(2)
    return {"logits": logits, "other_logits": other}


@adapter("self_distill")
def self_distill(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "n_views", 2)
    only(params, "teacher", "detached student")
    loss = SelfDistillation(params["student_temp"], params["teacher_temp"])
    return {"loss": evaluate(loss, **two_views(inputs))}


@adapter("dual_view_kl")
def dual_view_kl(inputs: Inputs, params: Inputs) -> Inputs:
    """The case is the sum of both losses."""
    terms = {
        "self": SelfDistillation(params["student_temp"], params["teacher_temp"]),
        "kl": Term(DualViewKL(params["student_temp"], twice=True), params["dkl_weight"]),
    }
    return {"loss": Objective(terms)(**two_views(inputs)).total}


@adapter("soft_entropy")
def soft_entropy(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "w_old_in", 1)
    only(params, "w_new_in", 1)
    old = int(inputs["seen"])

    def value(between: float, seen: float, new: float) -> Tensor:
        loss = SoftEntropy(old, between, seen, new, params["student_temp"])
        return evaluate(loss, logits=inputs["student_output"])

    return {
        "loss": value(params["w_old_new"], 1.0, 1.0),
        "inter": value(1.0, 0.0, 0.0),
        "old_in": value(0.0, 1.0, 0.0),
        "new_in": value(0.0, 0.0, 1.0),
    }


@adapter("weight_aware_distillation")
def weight_aware_distillation(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "weight", "s1*(1-s2/s1) = s1-s2")
    only(params, "reduction", "mean")
    similarity = inputs["similarity"]
    term = Term(CrossEntropy(), row_weighting=SimilarityGap())
    named = {"class_similarity": similarity, "target": similarity.argmax(1)}
    return {"loss": evaluate(term, logits=inputs["logits"], **named)}


@adapter("kernel_balancing")
def kernel_balancing(inputs: Inputs, params: Inputs) -> Inputs:
    loss = KernelBalancing(params["gamma"], params["C"], params["kernel_gamma"])
    named = {"features": inputs["eo"], "ref_features": inputs["ed"], "kernel_points": inputs["ej"]}
    return {"loss": evaluate(loss, inverse_propensity=inputs["w"], **named)}


@adapter("mahalanobis")
def mahalanobis(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "factor", -0.5)
    only(params, "tied_covariance", True)
    return {"value": mahalanobis_score(inputs["x"], inputs["means"], inputs["precision"])}
