# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The remaining classification and robust losses, and the row weightings beside them."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from adapters.classification import Given, labels, on_logits
from adapters.table import Deviates, NotBuilt, adapter, evaluate, only
from lightning_losses import Term
from lightning_losses.losses import (
    LDRKL,
    AdaptiveLDRKL,
    AsymmetricGCE,
    AsymmetricUnhinged,
    BinaryFocal,
    Bootstrapping,
    EnsLoss,
    JensenShannon,
    Mart,
    MulticlassHinge,
    NormalizedCompSum,
    RobustLogLoss,
    SmoothAdversarial,
    SphericalSoftmax,
    SphericalZ,
    SymmetricCrossEntropy,
    TaylorSoftmax,
    TruncatedGCE,
    Weat,
)
from lightning_losses.losses.classification.ensloss import slopes
from lightning_losses.weighting import EnergyWeight, LossReweighting, SimilarityGap

Inputs = dict[str, Any]


@adapter("binary_focal")
def binary_focal(inputs: Inputs, params: Inputs) -> Inputs:
    alpha = params.get("alpha", -1)  # negative: none
    loss = BinaryFocal(params.get("gamma", 2.0), None if alpha is None or alpha < 0 else alpha)
    return on_logits(loss, inputs, params)


@adapter("z_loss_spherical")
def spherical_z(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(SphericalZ(params.get("a", 1.0), params.get("b", 0.0)), inputs, params)


@adapter("taylor_softmax")
def taylor_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "order", 2)
    return on_logits(TaylorSoftmax(), inputs, params)


@adapter("spherical_softmax")
def spherical_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SphericalSoftmax(params.get("epsilon", 1e-4), bool(params.get("normalise", False)))
    return on_logits(loss, inputs, params)


@adapter("smooth_adv_comp_sum")
def smooth_adversarial(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SmoothAdversarial(*(params.get(name, 1.0) for name in ("tau", "rho", "nu")))
    return on_logits(loss, inputs, params, logits_adv=inputs["logits_adv"])


def hinge(inputs: Inputs, params: Inputs, over: Any) -> Inputs:
    margins = {name: params[name] for name in ("threshold", "margin") if name in params}
    if len(set(margins.values())) > 1 or params.get("weight") is not None:
        raise NotBuilt("two margins, or a weight a class")
    margin = next(iter(margins.values()), 1.0)
    only(params, "p", 1, 2)
    loss = MulticlassHinge("pairs", over, margin=margin, power=int(params.get("p", 1)))
    return on_logits(loss, inputs, params)


@adapter("crammer_singer")
def crammer_singer(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "normaliser", None, "B")
    return hinge(inputs, params, "max")


@adapter("weston_watkins")
def weston_watkins(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "normaliser", "B*K", "B")  # over rows and classes, as torch; or over rows
    over = {"B*K": "mean", "B": "sum"}[params.get("normaliser", "B*K")]
    return hinge(inputs, params, over)


@adapter("l2_svm")
def l2_svm(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "mode", "sum", "mean")
    summed = params.get("mode", "sum") == "sum"
    loss = MulticlassHinge("one_vs_rest", "sum" if summed else "mean", power=2)
    value = evaluate(
        loss, "sum" if summed else "mean", logits=inputs["logits"], target=labels(inputs)
    )
    # The norm of the head is a matter of weight decay, so no part of our loss.
    weight = inputs["weight"].square() if "weight" in inputs else value.new_zeros(1)
    norm = weight.sum() / 2 if summed else weight.mean()
    return {"loss": norm + params.get("C", 1.0) * value}


class Injected(EnsLoss):
    """EnsLoss with the draws of the source."""

    def __init__(self, power: float, z: Tensor) -> None:
        super().__init__(power)
        self.z = z

    def draw(self, size: int) -> Tensor:
        return self.z.reshape(-1)


@adapter("ensloss")
def ensloss(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "superlinear_tail", "1/s for s>1")
    only(params, "clip", -1.0)
    only(params, "shift", -1e-6)
    lam = params.get("lam", 0.0)
    loss = Injected(lam, inputs["z"])
    logits, target = inputs["logits"], inputs["target"]
    margins = ((2 * target - 1) * logits).detach().reshape(-1)
    counts = torch.ones_like(margins, dtype=torch.bool)
    return {
        "loss": evaluate(loss, logits=logits, target=target),
        "slopes": slopes(margins, counts, inputs["z"].reshape(-1), lam),
    }


@adapter("ldr_kl")
def ldr_kl(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "normalise", None, False, "softplus then divide by row mean")
    normalize = "softplus" if params.get("normalise") else None
    loss = LDRKL(params.get("threshold", 2.0), params.get("Lambda", 1.0), normalize)
    return on_logits(loss, inputs, params)


@adapter("aldr_kl")
def aldr_kl(inputs: Inputs, params: Inputs) -> Inputs:
    normalize = "softplus" if params.get("softplus", False) else "absolute"
    settings = (params.get(name, 1.0) for name in ("threshold", "Lambda", "alpha"))
    loss = AdaptiveLDRKL(params["N"], *settings, normalize).double()
    loss.lambdas.values[:-1] = inputs["lambda_before"].reshape(-1)
    found = on_logits(loss, inputs, params, sample_index=inputs["ids"])
    loss.lambdas.commit()
    shape = inputs["lambda_before"].shape
    return found | {"lambda_after": loss.lambdas.values[:-1].reshape(shape)}


@adapter("truncated_gce")
def truncated_gce(inputs: Inputs, params: Inputs) -> Inputs:
    loss = TruncatedGCE(params["N"], params.get("q", 0.7), params.get("k", 0.5))
    on_logits(loss, inputs, params, sample_index=inputs["idx"])  # the source's update_weight
    loss.kept.commit()
    found = on_logits(loss, inputs, params, sample_index=inputs["idx"])
    return found | {"weight_after_update": loss.kept.values[:-1]}


@adapter("nce")
def nce(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(NormalizedCompSum(1.0), inputs, params)


@adapter("ngce")
def ngce(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(NormalizedCompSum(1 + params.get("q", 0.7)), inputs, params)


@adapter("nrce")
def nrce(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean")
    found = on_logits(NormalizedCompSum(2.0), inputs, params)
    # The paper's: 1 - p_y over the sum of 1 - p_k, which is C - 1.
    p = inputs["logits"].softmax(-1)
    ours = (1 - p.gather(1, labels(inputs)[:, None])[:, 0]) / (1 - p).sum(-1)
    raise Deviates(
        "official code multiplies by (C-1)/4 where 1/(4(C-1)) is meant",
        found,
        {"loss": ours.mean(), "backward": ours.mean()},
    )


@adapter("rce")
def rce(inputs: Inputs, params: Inputs) -> Inputs:
    return reverse_ce(inputs, params, 0.0, 1.0)


@adapter("symmetric_ce")
def symmetric_ce(inputs: Inputs, params: Inputs) -> Inputs:
    return reverse_ce(inputs, params, 0.1, 1.0)


@adapter("nce_rce")
def nce_rce(inputs: Inputs, params: Inputs) -> Inputs:
    return reverse_ce(inputs, params, 1.0, 1.0, normalized=True)


def reverse_ce(
    inputs: Inputs, params: Inputs, alpha: float, beta: float, normalized: bool = False
) -> Inputs:
    """alpha times (normalised) cross-entropy plus beta times the reverse one."""
    alpha, beta = params.get("alpha", alpha), params.get("beta", beta)
    log_zero, clip = math.log(params.get("label_clip", 1e-4)), params.get("prob_clip", 1e-7)
    loss = SymmetricCrossEntropy(alpha, beta, log_zero, normalized)
    found = on_logits(loss, inputs, params)
    log_p = inputs["logits"].log_softmax(-1)
    if bool((log_p.exp() < clip).any()):  # both official codes clamp
        only(params, "reduction", "mean")
        chosen = log_p.gather(1, labels(inputs)[:, None])[:, 0]
        forward = chosen / log_p.sum(-1) if normalized else -chosen
        ours = (alpha * forward - beta * log_zero * (1 - chosen.exp())).mean()
        raise Deviates(
            f"official code clamps p at {clip:g}, ours does not",
            found,
            {"loss": ours, "backward": ours},
        )
    return found


@adapter("agce")
def agce(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(AsymmetricGCE(params.get("a", 1.0), params.get("q", 2.0)), inputs, params)


@adapter("aul")
def aul(inputs: Inputs, params: Inputs) -> Inputs:
    loss = AsymmetricUnhinged(params.get("a", 1.5), params.get("q", 0.9))
    return on_logits(loss, inputs, params)


@adapter("rll")
def rll(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(RobustLogLoss(params.get("alpha", 1.0), released_code=True), inputs, params)


@adapter("jensen_shannon")
def jensen_shannon(inputs: Inputs, params: Inputs) -> Inputs:
    label_weight, *others = params.get("weights", [0.5, 0.5])
    if len(others) != 1 or abs(label_weight + others[0] - 1) > 1e-12:
        raise NotBuilt("several predictions")
    return on_logits(JensenShannon(label_weight), inputs, params)


@adapter("bootstrapping")
def bootstrapping(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "mode", "soft", "hard")
    hard, detach = params.get("mode", "soft") == "hard", bool(params.get("detach", False))
    beta = params.get("beta", 0.8 if hard else 0.95)
    return on_logits(Bootstrapping(beta, hard, detach), inputs, params)


@adapter("mart")
def mart(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(Mart(params.get("beta", 6.0)), inputs, params, logits_adv=inputs["logits_adv"])


@adapter("weat")
def weat(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "variant", "nat", "adv")
    adversarial = params.get("variant", "nat") == "adv"
    beta = params.get("beta", 7.0 if adversarial else 6.0)
    term = Term(Weat(beta, adversarial), row_weighting=EnergyWeight())
    return on_logits(term, inputs, params, logits_adv=inputs["logits_adv"])


@adapter("loss_reweight")
def loss_reweight(inputs: Inputs, params: Inputs) -> Inputs:
    losses, strategy, delta = inputs["losses"], params.get("strategy"), params.get("delta", 1.0)
    if strategy not in ("linupper", "quadratic", "extremes", "upper"):
        raise NotBuilt(f"strategy {strategy!r}")
    valid = torch.ones_like(losses, dtype=torch.bool)
    # The source's h goes from -delta to delta, ours from -1 to 1; so do its f, but for quadratic.
    radius = params.get("r", 1.0) / (1.0 if strategy == "quadratic" else delta)
    weighting = LossReweighting(strategy, radius)
    return {
        # A weighted mean is the weighted sum where weights add up to 1.
        "loss": evaluate(Term(Given(), row_weighting=weighting), losses=losses),
        # Our weights have mean 1, the source's have sum 1.
        "weights": weighting(losses.detach(), valid) / len(losses),
        "normalized": weighting.place(losses.detach(), valid) * delta,
    }


@adapter("wad_weight")
def wad_weight(inputs: Inputs, params: Inputs) -> Inputs:
    similarity = inputs["class_similarity"]
    losses = similarity[:, 0]  # not looked at
    weight = SimilarityGap()(losses, torch.ones_like(losses, dtype=torch.bool), similarity)
    return {"weight": weight}
