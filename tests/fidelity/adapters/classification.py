# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Classification, robust and imbalance losses, heads, target transforms, weightings, penalties."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from adapters.table import Deviates, NotBuilt, adapter, evaluate, only
from lightning_losses import Objective, Term
from lightning_losses.heads import HarmonicHead
from lightning_losses.losses import (
    CompSum,
    CrossEntropy,
    Focal,
    LogsumexpPenalty,
    OrthogonalProjection,
    StableMax,
    Trades,
)
from lightning_losses.penalties import WeightDistribution
from lightning_losses.targets import HLGauss
from lightning_losses.weighting import KLDRO

Inputs = dict[str, Any]


def labels(inputs: Inputs) -> Tensor:
    """The class indices, whatever the source calls them: one-hot or +-1 there, indices here."""
    one_hot = [name for name in ("target_onehot", "target_pm") if name in inputs]
    for name in ("target", "labels", "y"):
        if name in inputs:
            # Some cases say the same twice.
            assert all(bool((inputs[n].argmax(-1) == inputs[name]).all()) for n in one_hot)
            return inputs[name]
    (name,) = one_hot
    if not bool(((inputs[name] == 1).sum(-1) == 1).all()):
        raise NotBuilt("several classes a row")
    return inputs[name].argmax(-1)


def on_logits(
    loss: nn.Module | Term, inputs: Inputs, params: Inputs, levels: bool = False, **named: Any
) -> Inputs:
    """One term on logits and target, with the source's reduction.

    ``levels``: a column for each of the classes but one, where they are ordered.
    """
    reduction = reduction_of(params)
    target = labels(inputs)
    only(params, "num_classes", inputs["logits"].shape[-1] + levels)
    return {"loss": evaluate(loss, reduction, logits=inputs["logits"], target=target, **named)}


def reduction_of(params: Inputs) -> str:
    """The objective's reduction; None is torch's old word for none."""
    reduction = params.get("reduction", "mean") or "none"
    if reduction not in ("mean", "sum", "none"):
        raise NotBuilt(f"reduction {reduction!r}")
    return str(reduction)


@adapter("comp_sum")
def comp_sum(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(CompSum(tau=params.get("tau", 1.0)), inputs, params)


@adapter("gce")
def gce(inputs: Inputs, params: Inputs) -> Inputs:
    q, clip = params.get("q", 0.7), params.get("prob_clip", 0.0)
    found = on_logits(CompSum(tau=1 + q), inputs, params)
    p = inputs["logits"].softmax(-1).gather(-1, labels(inputs)[:, None])[:, 0]
    if bool((p < clip).any()):
        rows = (1 - p**q) / q
        ours = {"mean": rows.mean(), "sum": rows.sum(), "none": rows}[reduction_of(params)]
        reason = f"official code clamps p_y at {clip:g}, ours does not"
        raise Deviates(reason, found, {"loss": ours, "backward": ours})
    return found


@adapter("mae_noisy")
def mae_noisy(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(CompSum(tau=2.0), inputs, params)


@adapter("focal", "loss.focal")
def focal(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(Focal(params.get("gamma", 2.0), params.get("alpha")), inputs, params)


@adapter("label_smoothing", "loss.label_smoothing_torch")
def label_smoothing(inputs: Inputs, params: Inputs) -> Inputs:
    smoothing = params.get("eps", 0.1) if "alpha" not in params else params["alpha"]
    return on_logits(CrossEntropy(label_smoothing=smoothing), inputs, params)


@adapter("stablemax_ce")
def stablemax_ce(inputs: Inputs, params: Inputs) -> Inputs:
    if not params.get("epsilon", 1e-30) <= 1e-30:  # lost in float64
        raise NotBuilt(f"epsilon {params['epsilon']}")
    logits = inputs["logits"]
    rows = evaluate(StableMax(), "none", logits=logits, target=labels(inputs))
    # Its probabilities are never formed; the loss of each class in turn tells them.
    each = [torch.full_like(labels(inputs), k) for k in range(logits.shape[-1])]
    losses = [evaluate(StableMax(), "none", logits=logits, target=k) for k in each]
    loss = on_logits(StableMax(), inputs, params)["loss"]
    return {
        "loss": loss[:, None] if loss.ndim else loss,  # official code keeps (N, 1)
        "loss_mean": loss,
        "loss_per_sample": rows,
        "probs": torch.stack(losses, -1).neg().exp(),
    }


@adapter("z_loss_palm")
def z_loss_palm(inputs: Inputs, params: Inputs) -> Inputs:
    terms = {"ce": Term(CrossEntropy()), "z": Term(LogsumexpPenalty(), params.get("coef", 1e-4))}
    objective = Objective(terms, reduction=reduction_of(params))
    return {"loss": objective(logits=inputs["logits"], target=labels(inputs)).total}


@adapter("hl_gauss")
def hl_gauss(inputs: Inputs, params: Inputs) -> Inputs:
    names = {"min_value": None, "max_value": None, "num_bins": None, "sigma_to_bin_ratio": 2.0}
    named = {name: params.get(name, default) for name, default in names.items()}
    if "sigma" in params:
        width = (named["max_value"] - named["min_value"]) / named["num_bins"]
        ratio = params["sigma"] / width
        if "sigma_to_bin_ratio" in params and not math.isclose(ratio, named["sigma_to_bin_ratio"]):
            raise NotBuilt(f"sigma {params['sigma']} beside another sigma_to_bin_ratio")
        named["sigma_to_bin_ratio"] = ratio
    transform = HLGauss(**named)
    found = on_logits(Term(CrossEntropy(), target_transform=transform), inputs, params)
    return found | {"target_probs": transform(inputs["target"])}


@adapter("harmonic")
def harmonic(inputs: Inputs, params: Inputs) -> Inputs:
    weight = inputs["weight"]
    n, eps = params.get("n", 1.0), params.get("eps", 1e-4)
    head = HarmonicHead(weight.shape[1], weight.shape[0], exponent=n, eps=eps)
    logits = functional_call(head, {"weight": weight}, (inputs["x"],))
    return on_logits(CrossEntropy(), inputs | {"logits": logits}, params)


@adapter("trades")
def trades(inputs: Inputs, params: Inputs) -> Inputs:
    loss = Trades(beta=params.get("beta", 1.0))
    return on_logits(loss, inputs, params, logits_adv=inputs["logits_adv"])


@adapter("opl")
def opl(inputs: Inputs, params: Inputs) -> Inputs:
    loss = OrthogonalProjection(
        gamma=params.get("gamma", 0.5), absolute=bool(params.get("abs_neg", False))
    )
    return {"loss": evaluate(loss, features=inputs["features"], target=labels(inputs))}


class Given(nn.Module):
    """The row losses that a case starts from."""

    scope = "rows"

    def forward(self, losses: Tensor) -> Tensor:
        return losses


@adapter("kl_dro_weights")
def kl_dro(inputs: Inputs, params: Inputs) -> Inputs:
    losses, radius = inputs["losses"], params.get("r", 1.0)
    weighting = KLDRO(radius)
    weighted = evaluate(Term(Given(), row_weighting=weighting), losses=losses)
    # Our weights have mean 1, the source's have sum 1.
    valid = torch.ones_like(losses, dtype=torch.bool)
    weights = weighting(losses.detach(), valid) / losses.numel()
    return {"loss": weighted, "weights": weights}


@adapter("kl_dro")
def kl_dro_value(inputs: Inputs, params: Inputs) -> Inputs:
    # The source's value is what the weights maximise: weighted mean - r KL(weights || uniform).
    # The gradient is that of the weighted mean alone, which is what we train on.
    found = kl_dro(inputs, params)
    weights = found["weights"]
    divergence = torch.special.xlogy(weights, weights * weights.numel()).sum()
    return found | {"loss": found["loss"] - params.get("r", 1.0) * divergence}


class Weights(nn.Module):
    """A model with these weight matrices; plain tensors, so that gradients reach the inputs."""

    def __init__(self, *weights: Tensor) -> None:
        super().__init__()
        self.held = weights

    def named_parameters(self, *_: Any, **__: Any) -> Iterator[tuple[str, Any]]:
        return ((f"layer{i}.weight", weight) for i, weight in enumerate(self.held))


def weight_distribution(inputs: Inputs, **settings: float) -> Inputs:
    # The source gives the layers that count; leaving out the first one is done before.
    loss = WeightDistribution(skip_first=False, **settings)
    return {"loss": evaluate(loss, module=Weights(*inputs.values()))}


@adapter("wdr_kurtosis")
def wdr_kurtosis(inputs: Inputs, params: Inputs) -> Inputs:
    target = params.get("kurtosis_target", 1.8)
    return weight_distribution(inputs, kurtosis_target=target, kurtosis_rate=1.0, skewness_rate=0.0)


@adapter("wdr_skewness")
def wdr_skewness(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "skewness_target", 0)  # that of a symmetric distribution
    return weight_distribution(inputs, kurtosis_rate=0.0, skewness_rate=1.0)
