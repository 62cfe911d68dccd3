# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The remaining classification and robust losses, and the row weightings beside them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.table import Deviates, adapter, evaluate
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


def labels(inputs: Inputs) -> Tensor:
    """Class indices; some sources have one-hot targets, or +-1."""
    for name in ("target", "labels", "y"):
        if name in inputs:
            return inputs[name]
    return inputs["target_onehot" if "target_onehot" in inputs else "target_pm"].argmax(-1)


def on_logits(loss: nn.Module | Term, inputs: Inputs, params: Inputs, **named: Any) -> Inputs:
    """One term on logits and target, with the source's reduction."""
    target = labels(inputs)
    reduction = params.get("reduction", "mean")
    return {"loss": evaluate(loss, reduction, logits=inputs["logits"], target=target, **named)}


@adapter("binary_focal")
def binary_focal(inputs: Inputs, params: Inputs) -> Inputs:
    alpha = params.get("alpha", -1)  # negative: none
    loss = BinaryFocal(params["gamma"], None if alpha is None or alpha < 0 else alpha)
    return on_logits(loss, inputs, params)


@adapter("z_loss_spherical")
def spherical_z(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(SphericalZ(params["a"], params["b"]), inputs, params)


@adapter("taylor_softmax")
def taylor_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    assert params.get("order", 2) == 2, "ours is of order 2"
    return on_logits(TaylorSoftmax(), inputs, params)


@adapter("spherical_softmax")
def spherical_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SphericalSoftmax(params["epsilon"], bool(params.get("normalise", False)))
    return on_logits(loss, inputs, params)


@adapter("smooth_adv_comp_sum")
def smooth_adversarial(inputs: Inputs, params: Inputs) -> Inputs:
    loss = SmoothAdversarial(params["tau"], params["rho"], params["nu"])
    return on_logits(loss, inputs, params, logits_adv=inputs["logits_adv"])


@adapter("crammer_singer", "weston_watkins")
def hinge(inputs: Inputs, params: Inputs) -> Inputs:
    # Only the source that sums over classes names a normaliser, B or B*K.
    over = {None: "max", "B": "sum", "B*K": "mean"}[params.get("normaliser")]
    loss = MulticlassHinge("pairs", over, margin=params.get("threshold", 1.0))
    return on_logits(loss, inputs, params)


@adapter("l2_svm")
def l2_svm(inputs: Inputs, params: Inputs) -> Inputs:
    target = inputs.get("target_pm")
    assert target is None or bool(((target == 1).sum(-1) == 1).all()), "one class a row"
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
    loss = Injected(params["lam"], inputs["z"])
    logits, target = inputs["logits"], inputs["target"]
    margins = ((2 * target - 1) * logits).detach().reshape(-1)
    counts = torch.ones_like(margins, dtype=torch.bool)
    return {
        "loss": evaluate(loss, logits=logits, target=target),
        "slopes": slopes(margins, counts, inputs["z"].reshape(-1), params["lam"]),
    }


@adapter("ldr_kl")
def ldr_kl(inputs: Inputs, params: Inputs) -> Inputs:
    normalize = "softplus" if params.get("normalise") else None
    return on_logits(LDRKL(params["threshold"], params["Lambda"], normalize), inputs, params)


@adapter("aldr_kl")
def aldr_kl(inputs: Inputs, params: Inputs) -> Inputs:
    normalize = "softplus" if params["softplus"] else "absolute"
    loss = AdaptiveLDRKL(
        params["N"], params["threshold"], params["Lambda"], params["alpha"], normalize
    ).double()
    loss.lambdas.values[:-1] = inputs["lambda_before"].reshape(-1)
    found = on_logits(loss, inputs, params, sample_index=inputs["ids"])
    loss.lambdas.commit()
    shape = inputs["lambda_before"].shape
    return found | {"lambda_after": loss.lambdas.values[:-1].reshape(shape)}


@adapter("truncated_gce")
def truncated_gce(inputs: Inputs, params: Inputs) -> Inputs:
    loss = TruncatedGCE(params["N"], params["q"], params["k"])
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
    found = on_logits(NormalizedCompSum(2.0), inputs, params)
    raise Deviates("official code multiplies by (C-1)/4 where 1/(4(C-1)) is meant", found)


@adapter("rce")
def rce(inputs: Inputs, params: Inputs) -> Inputs:
    return symmetric_ce(inputs, {"alpha": 0.0, "beta": 1.0} | params)


@adapter("symmetric_ce")
def symmetric_ce(inputs: Inputs, params: Inputs, normalized: bool = False) -> Inputs:
    log_zero = float(torch.tensor(params.get("label_clip", 1e-4), dtype=torch.float64).log())
    loss = SymmetricCrossEntropy(params["alpha"], params["beta"], log_zero, normalized)
    found = on_logits(loss, inputs, params)
    # Unless a case says otherwise: both official codes clamp p at 1e-7.
    if bool((inputs["logits"].softmax(-1) < params.get("prob_clip", 1e-7)).any()):
        raise Deviates("official code clamps p at 1e-7, ours does not", found)
    return found


@adapter("nce_rce")
def nce_rce(inputs: Inputs, params: Inputs) -> Inputs:
    return symmetric_ce(inputs, {"alpha": 1.0, "beta": 1.0} | params, normalized=True)


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
    label_weight, other = params["weights"]
    assert abs(label_weight + other - 1) < 1e-12, "one label and one prediction"
    return on_logits(JensenShannon(label_weight), inputs, params)


@adapter("bootstrapping")
def bootstrapping(inputs: Inputs, params: Inputs) -> Inputs:
    hard, detach = params["mode"] == "hard", bool(params.get("detach", False))
    return on_logits(Bootstrapping(params["beta"], hard, detach), inputs, params)


@adapter("mart")
def mart(inputs: Inputs, params: Inputs) -> Inputs:
    return on_logits(Mart(params["beta"]), inputs, params, logits_adv=inputs["logits_adv"])


@adapter("weat")
def weat(inputs: Inputs, params: Inputs) -> Inputs:
    adversarial = params.get("mode", params.get("variant", "nat")) == "adv"
    term = Term(Weat(params["beta"], adversarial), row_weighting=EnergyWeight())
    return on_logits(term, inputs, params, logits_adv=inputs["logits_adv"])


@adapter("loss_reweight")
def loss_reweight(inputs: Inputs, params: Inputs) -> Inputs:
    if "strategy" not in params:
        raise Deviates("params name no strategy: compared by name in tests/test_losses_robust.py")
    losses = inputs["losses"]
    valid = torch.ones_like(losses, dtype=torch.bool)
    weighting = LossReweighting(params["strategy"], params["r"] / params.get("delta", 1.0))
    # Our weights have mean 1, the source's have sum 1.
    weights = weighting(losses.detach(), valid) / len(losses)
    place = weighting.place(losses.detach(), valid) * params.get("delta", 1.0)
    return {"loss": (weights * losses).sum(), "weights": weights, "normalized": place}


@adapter("wad_weight")
def wad_weight(inputs: Inputs, params: Inputs) -> Inputs:
    similarity = inputs["class_similarity"]
    losses = similarity[:, 0]  # not looked at
    weight = SimilarityGap()(losses, torch.ones_like(losses, dtype=torch.bool), similarity)
    return {"weight": weight}
