# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Adaptation without labels: test-time selections, priors of class shares, discovery of classes."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import NotBuilt, Term, adapter, evaluate, only
from lightning_losses.losses import (
    CrossEntropy,
    DualViewKL,
    EntropyMinimization,
    EntropyWithPrior,
    LocalEntropy,
    SoftEntropy,
    SoftLikelihoodRatio,
)
from lightning_losses.losses.adaptation.entropy_with_prior import class_shares
from lightning_losses.weighting import AgreesWithSource, ReliableRows

Inputs = dict[str, Any]


@adapter("slr")
def slr(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SoftLikelihoodRatio(params["clip"], params["eps"])
    rows = evaluate(loss, "none", logits=inputs["logits"])
    return {"per_sample": rows, "backward": rows.mean()}


@adapter("ostta_selection")
def ostta(inputs: Inputs, params: Inputs) -> Inputs:
    logits, source = inputs["adapted_logits"], inputs["original_logits"]
    weighting = AgreesWithSource(params["margin"])
    losses = torch.zeros(len(logits), dtype=torch.float64)
    kept = weighting(losses, torch.ones(len(logits), dtype=torch.bool), logits, source) > 0
    term = Term(EntropyMinimization(), row_weighting=weighting)
    x = logits.clone().requires_grad_()
    loss = evaluate(term, logits=x, teacher_logits=source)
    return {"keep": kept, "loss": loss, "grad_logits": torch.autograd.grad(loss, x)[0]}


@adapter("eata_weight")
def eata(inputs: Inputs, params: Inputs) -> Inputs:
    logits = inputs["logits"]
    entropy = evaluate(EntropyMinimization(), "none", logits=logits)
    valid = torch.ones(len(logits), dtype=torch.bool)
    weights = ReliableRows(params["e_margin"])(entropy, valid, entropy)
    return {"keep": weights > 0, "weight": weights}


@adapter("sfda_entropy_kl_prior")
def sfda(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "power", 1)
    only(params, "eps", 1e-10)
    prior = inputs["prior_pixel_counts"].squeeze(-1)
    named = {"logit_map": inputs["logits"], "class_prior": prior}
    both = params["lamb_se"], params["lamb_consprior"]
    parts = [
        evaluate(EntropyWithPrior(params["weights_se"], *pair), **named)
        for pair in ((both[0], 0.0), (0.0, both[1]), both)
    ]
    p = inputs["logits"].softmax(1)
    return {
        "entropy_term": parts[0],
        "kl_term": parts[1],
        "loss": parts[2],
        "est_prop": class_shares(p, torch.ones_like(p[:, :1], dtype=torch.bool)),
    }


@adapter("happy_soft_entropy")
def happy(inputs: Inputs, params: Inputs) -> Inputs:
    weights = params["w_old_new"], params["w_old_in"], params["w_new_in"]
    seen = params["num_seen"]

    def loss(*w: float) -> Any:
        return evaluate(SoftEntropy(seen, *w, params["temp"]), logits=inputs["logits"])

    return {
        "loss": loss(*weights),
        "old_new": loss(1, 0, 0),
        "old_in": loss(0, 1, 0),
        "new_in": loss(0, 0, 1),
    }


@adapter("legogcd_ler")
def legogcd_ler(inputs: Inputs, params: Inputs) -> Inputs:
    logits = inputs["logits"]
    only(params, "weight_in_total", 2.0)
    loss = LocalEntropy(
        logits.shape[1],
        params["num_labelled_classes"],
        params["threshold"],
        params["tau"],
        params["temp"],
        params["conf_temp"],
    )
    loss.share = inputs["qhat"][0]
    loss.eval()
    named = {"logits": logits, "labelled": inputs["is_labelled"]}
    return {
        "loss": evaluate(loss, **named),
        "mask": evaluate(loss, "none", **named).detach() > 0,
    }


@adapter("legogcd_dkl")
def legogcd_dkl(inputs: Inputs, params: Inputs) -> Inputs:
    z = inputs["student_logits"].clone().requires_grad_()
    if max(*params["view1_rows"], *params["view2_rows"]) >= len(z):
        raise NotBuilt("rows that are not there")
    one, two = (z[params[f"view{i}_rows"]] for i in (1, 2))
    dkl = evaluate(DualViewKL(params["student_temp"], twice=True), logits=one, other_logits=two)
    (grad,) = torch.autograd.grad(dkl, z)
    # The self-distillation beside it is a cross-entropy to the sharpened prediction of the other
    # view.
    only(params, "teacher_temp", 0.04)
    only(params, "epoch_after_warmup", True)
    teacher = (z.detach() / params["teacher_temp"]).softmax(1)
    student = z.detach() / params["student_temp"]
    rows = params["view1_rows"], params["view2_rows"]
    pairs = ((rows[0], rows[1]), (rows[1], rows[0]))
    distilled = torch.stack(
        [evaluate(CrossEntropy(), logits=student[b], target=teacher[a]) for a, b in pairs]
    ).mean()
    return {
        "dkl": dkl,
        "grad_dkl": grad,
        "distill_only_simgcd": distilled,
        "distill_plus_dkl": distilled + dkl,
    }
