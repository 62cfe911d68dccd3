# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Unnormalised models, marginals of sequences, flows and divergences."""

from __future__ import annotations

import math
from typing import Any

import torch

from adapters.table import Deviates, NotBuilt, Term, adapter, evaluate, only
from lightning_losses.losses.density.compositional_nll import CompositionalNLL
from lightning_losses.losses.density.marginalization import MarginalizationConsistency
from lightning_losses.losses.density.noise_contrastive import NoiseContrastive
from lightning_losses.losses.distillation.f_divergence import FDivergence
from lightning_losses.losses.ordinal.squared_error import SquaredError
from lightning_losses.weighting.gibbs import Gibbs

Inputs = dict[str, Any]


@adapter("noise_contrastive")
def noise_contrastive(inputs: Inputs, params: Inputs) -> Inputs:
    rows = len(inputs["s_data"])
    if inputs["s_noise"].numel() != params.get("nu", 1.0) * rows:
        raise NotBuilt("another number of noise samples than nu a row")
    named = {
        "score": inputs["s_data"],
        "log_q": inputs["lq_data"],
        "noise_score": inputs["s_noise"].reshape(rows, -1),
        "noise_log_q": inputs["lq_noise"].reshape(rows, -1),
    }
    return {"loss": evaluate(NoiseContrastive(), **named)}


@adapter("meco")
def meco(inputs: Inputs, params: Inputs) -> Inputs:
    loss = CompositionalNLL(params.get("gamma", 0.1)).double()
    loss.log_z.value.fill_(math.log(inputs["u_prev"]))
    rows = len(inputs["s_data"])
    named = {
        "score": inputs["s_data"],
        "noise_score": inputs["s_noise"].reshape(rows, -1),
        "noise_log_q": inputs["lq_noise"].reshape(rows, -1),
    }
    report = evaluate(loss, **named)
    loss.log_z.commit()
    u = loss.log_z.value.exp()
    # The source's value has r / u, of which only the gradient means something, ours has log u.
    r = (inputs["s_noise"] - inputs["lq_noise"]).detach().exp().mean()
    surrogate = report.detach() - u.log() + r / u
    return {"loss": surrogate, "backward": report, "report": report, "u_new": u}


@adapter("mam_self_consistency")
def mam_self_consistency(inputs: Inputs, params: Inputs) -> Inputs:
    term = Term(MarginalizationConsistency(), inputs={"log_prob": "log_conditional"})
    named = {
        "log_conditional": inputs["lp_cond"],
        "log_marginal": inputs["lp_prev"],
        "next_log_marginal": inputs["lp_next"],
    }
    return {"loss": evaluate(term, **named)}


@adapter("w_cfm")
def w_cfm(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "normalise", "batch mean weight")
    epsilon = params.get("epsilon", 1.0)
    weighting = Gibbs(epsilon)
    x0, x1 = inputs["x0"], inputs["x1"]
    named = {"estimate": inputs["v"], "reference": x1 - x0, "x0": x0, "x1": x1}
    rows = torch.zeros(len(x0), dtype=torch.float64)
    found = weighting(rows, torch.ones_like(rows, dtype=torch.bool), x0, x1)
    # Ours have mean 1, the source's are the kernel itself and divided by their mean later.
    kernel = (-(x1 - x0).square().sum(1) / epsilon).exp()
    loss = evaluate(Term(SquaredError(), row_weighting=weighting), **named)
    return {"loss": loss, "weights": found * kernel.mean()}


@adapter("f_divergence_alpha")
def f_divergence_alpha(inputs: Inputs, params: Inputs) -> Inputs:
    alpha = params["alpha"]
    z, teacher = inputs["student_logits"], inputs["teacher_logits"]
    gap = (teacher.log_softmax(1) - z.log_softmax(1)).detach()
    if bool((alpha * gap > math.log(params.get("iw_clip", 1e3))).any()):
        raise NotBuilt("clipped importance weights")
    value = evaluate(FDivergence("alpha", alpha), logits=z, teacher_logits=teacher)
    # sum q ((p/q)^a - 1) / (a (a - 1)) of the teacher p and the student q, and its two limits.
    q = z.detach().softmax(1)
    if alpha == 0:
        ours = -(q * gap).sum(1)
    elif alpha == 1:
        ours = (q * gap.exp() * gap).sum(1)
    else:
        ours = (q * ((alpha * gap).exp() - 1)).sum(1) / (alpha * (alpha - 1))
    raise Deviates(
        "the source's value is a score function, of which only the gradient means something",
        {"loss": value, "value": value},
        {"loss": ours.mean()},
    )
