# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses for calibrated confidences."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from adapters.classification import on_logits
from adapters.table import Deviates, adapter, evaluate, only
from lightning_losses import Objective, Term
from lightning_losses.calibrators.correctness_aware import correctness_loss
from lightning_losses.calibrators.correctness_views import view_temperature
from lightning_losses.losses import (
    DCA,
    MDCA,
    MMCE,
    AvUC,
    Brier,
    CorrectnessAware,
    CrossEntropy,
    DualFocal,
    Evidential,
    Focal,
    SoftAvUC,
    SoftBinnedECE,
    SoftLabelBinnedECE,
)

Inputs = dict[str, Any]


def beside(
    main: torch.nn.Module, term: torch.nn.Module, weight: float, inputs: Inputs, by: float = 1.0
) -> Inputs:
    """Two terms in one objective, as the sources add them up."""
    objective = Objective({"main": Term(main, by), "term": Term(term, weight)})
    return {"loss": objective(inputs["logits"], inputs["y"]).total}


@adapter("loss.dual_focal")
def dual_focal(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(DualFocal(params.get("gamma", 0)), inputs, params)


@adapter("loss.mmce_m")
def mmce_squared(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(MMCE("squared", params.get("kernel_width", 0.4)), inputs, params)


@adapter("loss.mmce_w")
def mmce_weighted(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(MMCE("official", params.get("kernel_width", 0.4)), inputs, params)


@adapter("mmce.sqrt_laplacian2.5")
def mmce_metric(inputs: Inputs, params: Inputs) -> Inputs:
    p, y = inputs["p"], inputs["y"]
    if p.ndim > y.ndim:
        return {"value": evaluate(MMCE("norm"), logits=p.log(), target=y)}
    two = torch.stack([1 - p, p], -1)
    gap = two.amax(1) - (two.argmax(1) == y).double()
    kernel = (-(two.amax(1)[:, None] - two.amax(1)).abs() / 0.4).exp()
    raise Deviates(
        "netcal holds the probability of the event against whether the decision was right; ours "
        "the confidence in the decision",
        {"value": evaluate(MMCE("norm"), logits=two.log(), target=y)},
        {"value": (gap @ kernel @ gap).sqrt() / len(p)},
    )


@adapter("loss.brier")
def brier(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean over N, sum over C")
    return {"value": evaluate(Brier(), logits=inputs["logits"], target=inputs["y"])}


@adapter("loss.mdca_aux")
def mdca(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(MDCA(), inputs, params)


@adapter("loss.nll+mdca")
def nll_mdca(inputs: Inputs, params: Inputs) -> Inputs:
    return beside(CrossEntropy(), MDCA(), params.get("beta", 1.0), inputs)


@adapter("loss.fl+mdca")
def focal_mdca(inputs: Inputs, params: Inputs) -> Inputs:
    gamma = params.get("gamma", 2.0)
    return beside(Focal(gamma), MDCA(), params.get("beta", 1.0), inputs)


@adapter("loss.nll+dca")
def nll_dca(inputs: Inputs, params: Inputs) -> Inputs:
    return beside(CrossEntropy(), DCA(), params.get("beta", 1.0), inputs)


@adapter("loss.ce+dca_beta10")
def ce_dca(inputs: Inputs, params: Inputs) -> Inputs:
    by = params.get("alpha", 1.0)
    return beside(CrossEntropy(), DCA(), params.get("beta", 10.0), inputs, by)


@adapter("loss.label_smoothing_cminus1")
def smoothing_of_the_others(inputs: Inputs, params: Inputs) -> Inputs:
    # Mass alpha on the C - 1 other classes; ours is on all C.
    classes = inputs["logits"].shape[1]
    smoothing = params.get("alpha", 0.1) * classes / (classes - 1)
    return on_logits(CrossEntropy(label_smoothing=smoothing), inputs, params)


@adapter("loss.soft_binned_ece.l2")
def soft_binned(inputs: Inputs, params: Inputs) -> Inputs:
    bins, decay = params.get("bins", 15), params.get("decay_factor", 80.0)
    temperature = params.get("temp", 0.01)
    by_decay = bool(params.get("use_decay", False))
    loss = SoftBinnedECE(bins, None if by_decay else temperature, decay)
    return on_logits(loss, inputs, params)


@adapter("loss.soft_label_binned_ece.sq")
def soft_label_binned(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SoftLabelBinnedECE(params.get("m", 15), params.get("temp", 0.01))
    return on_logits(loss, inputs, params)


@adapter("loss.avuc")
def avuc(inputs: Inputs, params: Inputs) -> Inputs:
    loss = AvUC(params.get("entropy_threshold", 1.0), bool(params.get("stop_grad", False)))
    return on_logits(loss, inputs, params)


@adapter("loss.soft_avuc")
def soft_avuc(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SoftAvUC(params.get("theta", 0.5), params.get("temp", 0.1))
    return on_logits(loss, inputs, params)


def evidential(inputs: Inputs, params: Inputs, kind: Any) -> Inputs:
    only(params, "reg_weight", None, 0, 0.0)
    return on_logits(Evidential(kind, kl_weight=0.0), inputs, params)


@adapter("loss.edl_mse")
def edl_mse(inputs: Inputs, params: Inputs) -> Inputs:
    return evidential(inputs, params, "mse")


@adapter("loss.edl_log")
def edl_log(inputs: Inputs, params: Inputs) -> Inputs:
    return evidential(inputs, params, "log")


@adapter("loss.edl_digamma")
def edl_digamma(inputs: Inputs, params: Inputs) -> Inputs:
    return evidential(inputs, params, "digamma")


def correctness(inputs: Inputs, params: Inputs, balanced: bool) -> Inputs:
    """The loss of training; and the calibrator's own copy of it must say the same."""
    found = on_logits(CorrectnessAware(balanced), inputs, params)
    logits: Tensor = inputs["logits"]
    right = logits.argmax(1) == inputs["y"]
    twin = correctness_loss(logits.softmax(1).amax(1), right, balanced)
    assert torch.allclose(found["loss"], twin, rtol=1e-12)
    return found


@adapter("loss.correctness_aware.balanced_mse")
def correctness_balanced(inputs: Inputs, params: Inputs) -> Inputs:
    return correctness(inputs, params, balanced=True)


@adapter("loss.correctness_aware.plain_mse")
def correctness_plain(inputs: Inputs, params: Inputs) -> Inputs:
    return correctness(inputs, params, balanced=False)


@adapter("loss.correctness_aware.official_calibrator")
def correctness_official(inputs: Inputs, params: Inputs) -> Inputs:
    width, seen = params.get("feat_dim", 5), params.get("input_dim", 6)
    weights, features = inputs["state_dict"], inputs["temp_arg"]
    assert inputs.get("use", "logits") == "logits"
    names = (
        "embed_layer.0.weight",
        "embed_layer.0.bias",
        "temperature_layer.weight",
        "temperature_layer.bias",
    )
    shapes = ((width, seen), (width,), (width,), ())
    numbers = [
        weights[name].reshape(shape).requires_grad_()
        for name, shape in zip(names, shapes, strict=True)
    ]
    logits, target = inputs["logits"], inputs["y"]
    temperature = view_temperature(features, *numbers)
    confidence = (logits / temperature[:, None]).softmax(1).amax(1)
    loss = correctness_loss(confidence, logits.argmax(1) == target)
    gradients = torch.autograd.grad(loss, numbers, retain_graph=True)
    shown = {
        f"grad of {name}": gradient.reshape(shape)
        for name, gradient, shape in zip(
            names, gradients, ((width, seen), (width,), (1, width), (1,)), strict=True
        )
    }
    return {"loss": loss, "temperature": temperature, **shown}
