# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Training dynamics. (StableMax, whose key is also here, is with the classification losses.)"""

from __future__ import annotations

from typing import Any

import torch
from golden_harness.compare import difference

from adapters.table import Deviates, Term, adapter, evaluate
from lightning_losses.losses import LogsumexpPenalty
from lightning_losses.metrics.representation.class_moments import nearest_centre
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse
from lightning_losses.metrics.training_curve.annealing import annealing_law, learning_rate_sums
from lightning_losses.metrics.training_curve.law_grid import huber
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity
from lightning_losses.softmax import softmax_stats

Inputs = dict[str, Any]


@adapter("z_loss")
def z_loss(inputs: Inputs, params: Inputs) -> Inputs:
    term = Term(LogsumexpPenalty(), weight=inputs["coeff"])
    logits = inputs["logits"]
    return {"loss": evaluate(term, logits=logits), "log_z": softmax_stats(logits).logsumexp}


@adapter("neural_collapse")
def neural_collapse(inputs: Inputs, params: Inputs) -> Inputs:
    features, labels, weight = inputs["features"], inputs["labels"], inputs["W"]
    names = {
        "NC1_pinv": "nc1",
        "NC1_quotient": "nc1_quotient",
        "NC2_equinorm_means": "nc2_norms",
        "NC2_equinorm_weights": "nc2_norms_weights",
        "NC2_equiangular_means_std": "nc2_angle_std",
        "NC2_equiangular_weights_std": "nc2_angle_std_weights",
        "NC2_maxangle_means": "nc2_angles",
        "NC2_maxangle_weights": "nc2_angles_weights",
        "NC2_ETF_frobenius_WWt": "nc2_etf_weights",
        "NC3_papyan_sq": "nc3",
        "NC3_frobenius_WHt": "nc3_product",
    }
    found: Inputs = {}
    for case, centre in (("class_balanced", "classes"), ("sample", "rows")):
        metric = NeuralCollapse(3, 4, global_mean=centre)  # type: ignore[arg-type]
        for batch in range(0, len(labels), 4):  # streamed
            metric.update(features[batch : batch + 4], labels[batch : batch + 4])
        values = metric.compute(weight)
        nearest = nearest_centre(features, values["class_mean"], values["class_count"])
        linear = (features @ weight.T + inputs["b"]).argmax(1)
        mismatch = (nearest != linear).double().mean()
        found[f"{case}_global_mean"] = {theirs: values[ours] for theirs, ours in names.items()}
        found[f"{case}_global_mean"]["NC4_mismatch"] = mismatch
    return {"expected": found}


@adapter("lr_annealing_law")
def annealing(inputs: Inputs, params: Inputs) -> Inputs:
    for case in inputs["cases"]:
        s1, s2 = learning_rate_sums(case["lr"].tolist(), case["lam"])
        fit = case["predicted_with"]
        law = annealing_law(s1, s2, fit["L0"], fit["A"], fit["alpha"], fit["C"])
        for name, ours in {"S1": s1, "S2": s2, "predicted": law}.items():
            wrong = difference(f"{case['name']}.{name}", ours, case[name], 1e-12, 0.0)
            assert wrong is None, wrong
    fixed = inputs["huber"]
    value = huber(fixed["residual"], fixed["delta"])
    return {"huber": fixed | {"value": value}}


@adapter("lr_sensitivity")
def sensitivity(inputs: Inputs, params: Inputs) -> Inputs:
    losses, rates = inputs["loss"].tolist(), inputs["lrs"].tolist()
    return {
        "value_mean_over_grid": lr_sensitivity(losses, inputs["loss_init"]),
        "value_trapezoid_log_lr": lr_sensitivity(losses, inputs["loss_init"], rates),
    }


@adapter("softmax_collapse")
def softmax_collapse(inputs: Inputs, params: Inputs) -> Inputs:
    """As `LogitHealthMonitor` reads it from the statistics, in the dtype they compute in."""
    found = {}
    for dtype in (torch.float16, torch.float32, torch.float64):
        stats = softmax_stats(inputs["logits"].to(dtype), target=inputs["labels"].long())
        assert stats.confidence is not None
        assert stats.log_prob is not None
        found[str(dtype)] = {
            "softmax_collapse": (stats.confidence == 1).double().mean(),
            "zero_terms": (stats.log_prob == 0).double().mean(),
        }
    # In float32 for float16 logits: how often 1 + exp(-gap) is 1, and its logarithm 0.
    z = inputs["logits"].to(torch.float16).to(torch.float32)
    gaps = z - z.gather(1, inputs["labels"].long()[:, None])
    one = (z - z.amax(1, keepdim=True)).exp().sum(1) == 1
    ours = {
        "softmax_collapse": one.double().mean(),
        "zero_terms": (gaps.exp().sum(1) == 1).double().mean(),
    }
    raise Deviates(
        "no loss here computes in float16, so float16 logits collapse as float32 ones do",
        {"by_dtype": found},
        {"by_dtype": inputs["by_dtype"] | {"torch.float16": ours}},
    )
