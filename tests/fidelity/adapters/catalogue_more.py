# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Sets of segmentations, recommenders, integer programs, and margin control."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.classification import labels
from adapters.table import Term, adapter, evaluate, only
from lightning_losses import Objective
from lightning_losses.losses import CrossEntropy, PlackettLuceDistillation
from lightning_losses.losses.classification.margin_control import MarginControl
from lightning_losses.losses.combinatorial.inter_variable_contrastive import (
    InterVariableContrastive,
)
from lightning_losses.losses.recommender.ips_bce import IPSBinaryCrossEntropy
from lightning_losses.losses.recommender.personal_loss import (
    PersonalLoss,
    pair_losses,
)
from lightning_losses.losses.segmentation.energy_distance import EnergyDistance
from lightning_losses.losses.segmentation.sinkhorn import SinkhornDivergence

Inputs = dict[str, Any]


@adapter("margin_control")
def margin_control(inputs: Inputs, params: Inputs) -> Inputs:
    terms = {
        "ce": CrossEntropy(),
        "margin_control": Term(MarginControl(), params.get("lambda_", 0.03)),
    }
    return {"loss": Objective(terms)(inputs["logits"], labels(inputs)).total}


@adapter("pulaski_energy")
def pulaski_energy(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "loss", "energy")
    x, y = inputs["x"], inputs["y"]
    # geomloss has 1e-4 instead of 0 for the distance of a point to itself.
    own = 1e-4 * (1 / x.shape[1] + 1 / y.shape[1]) / 2
    return {"loss": evaluate(EnergyDistance(), estimate=x, reference=y) - own}


@adapter("pulaski_sinkhorn")
def pulaski_sinkhorn(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "loss", "sinkhorn")
    only(params, "p", 2)
    loss = SinkhornDivergence(params.get("blur", 0.05))
    return {"loss": evaluate(loss, estimate=inputs["x"], reference=inputs["y"])}


@adapter("coco_milp_vcl")
def coco_milp_vcl(inputs: Inputs, params: Inputs) -> Inputs:
    names = {"tau": 0.1, "margin": 0.9, "alpha": 0.01, "weight_norm": 100.0}
    loss = InterVariableContrastive(*(params.get(name, value) for name, value in names.items()))
    # One instance; the source sums over instances.
    named = {"logits": inputs["logits"][None], "solutions": inputs["sols"].long()[None]}
    return {"loss": evaluate(loss, "sum", **named, solution_value=inputs["vals"][None])}


@adapter("ips_bce")
def ips_bce(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "sum(w*bce)/N")
    p: Tensor = inputs["p"]
    named = {"logits": p.log() - (-p).log1p(), "target": inputs["y"]}
    return {"loss": evaluate(IPSBinaryCrossEntropy(), **named, inverse_propensity=inputs["w"])}


@adapter("pld")
def pld(inputs: Inputs, params: Inputs) -> Inputs:
    """Two methods of this name: a sampler for recommenders here, and a distillation."""
    if "student" in inputs:
        only(params, "reduction", "mean")
        only(params, "label", None, "index 0")
        target = inputs.get("labels")
        if params.get("label") is not None:
            target = torch.zeros(len(inputs["student"]), dtype=torch.int64)
        loss = PlackettLuceDistillation(params.get("teacher_temperature", 1.0))
        named = {"logits": inputs["student"], "teacher_logits": inputs["teacher"]}
        return {"loss": evaluate(loss, **named, target=target)}
    pos, neg = inputs["pos"], inputs["neg"]
    only(params, "k", pos.shape[1])
    loss = PersonalLoss(params.get("temperature", 0.1))
    with torch.no_grad():
        weights = loss.weights(pair_losses(pos, neg))
    return {"loss": evaluate(loss, logits_positive=pos, logits_negative=neg), "weights": weights}
