# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Imbalance, ordinal, segmentation and structured losses, distances and margins of heads."""

from __future__ import annotations

import math
from typing import Any, get_args

import torch
from torch import Tensor
from torch.func import functional_call

from adapters import reference
from adapters.classification import Weights, labels, on_logits, reduction_of
from adapters.table import Deviates, NotBuilt, Term, adapter, evaluate, only
from lightning_losses.heads import (
    ArcFaceHead,
    CosFaceHead,
    FourierHead,
    HarmonicDistanceHead,
    HyperbolicMLR,
    NormalizedHead,
)
from lightning_losses.heads.harmonic_distance import Distance
from lightning_losses.losses import (
    AggregateResponses,
    AnyLoss,
    ClassBalanced,
    Coral,
    Corn,
    CrossEntropy,
    CSDivergence,
    CSMutualInformation,
    Dice,
    DiceCE,
    DistanceCovariance,
    KdeKL,
    LabelProportion,
    LogitAdjustment,
    OrdinalNLL,
    Pinball,
    ProfitAwareBCE,
    PseudoHuber,
    RegionWise,
    SkeletonRecall,
    SoftClDice,
    TriBCE,
    Tversky,
)
from lightning_losses.losses.imbalance.anyloss import SCORES
from lightning_losses.losses.ordinal.ordinal_nll import ordinal_softmax
from lightning_losses.penalties import AdjacentLasso
from lightning_losses.targets import TwoHot

Inputs = dict[str, Any]


def logit(p: Tensor) -> Tensor:
    """The scores of probabilities that a source starts from."""
    return p.log() - (-p).log1p()


# -- imbalance -------------------------------------------------------------------------------------


@adapter("class_balanced")
def class_balanced(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "loss_type", "cross_entropy", "focal_loss")
    focal = params.get("loss_type", "cross_entropy") == "focal_loss"
    gammas = [params[name] for name in ("gamma", "fl_gamma") if name in params]
    gamma = (gammas or [2.0])[0] if focal else 0.0
    loss = ClassBalanced(params["samples_per_class"], params.get("beta", 0.999), gamma)
    return on_logits(loss, inputs, params) | {"weights": torch.tensor(loss.class_weight)}


@adapter("logit_adjustment", "balanced_softmax")
def logit_adjustment(inputs: Inputs, params: Inputs) -> Inputs:
    counts = inputs["prior"] if "prior" in inputs else params["samples_per_class"]
    counts = torch.as_tensor(counts, dtype=torch.float64)
    # Priors may be shares; ours are counts of at least 1, and a common factor is no matter.
    loss = LogitAdjustment(counts / counts.min(), params.get("tau", 1.0))
    return on_logits(loss, inputs, params)


@adapter("dice_nlp")
def dice_nlp(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "ohem_ratio", 0, None)
    only(params, "index_label_position", True)  # it shifts where targets are one-hot, not indices
    if inputs.get("mask") is not None:
        raise NotBuilt("a mask")
    loss = Dice(
        alpha=params.get("alpha", 0.0),
        smooth=params.get("smooth", 1e-4),
        square=bool(params.get("square_denominator", False)),
    )
    z, target = inputs["input"], inputs["target"]
    if not params.get("with_logits", True):
        z = logit(z) if z.shape[-1] == 1 else z.log()
    binary = z.ndim == 1 or z.shape[-1] == 1
    z = z.reshape(-1) if binary else z.reshape(-1, z.shape[-1])
    reduction = reduction_of(params)
    if binary:  # one set: one number, whatever the reduction
        return {"loss": evaluate(loss, logits=z, target=target.reshape(-1))}
    return {"loss": evaluate(loss, reduction, logits=z, target=target.reshape(-1))}


@adapter("dsc_paper")
def dsc_paper(inputs: Inputs, params: Inputs) -> Inputs:
    alpha, gamma = params.get("alpha", 1.0), params.get("gamma", 1.0)
    loss = Dice(alpha, gamma, square=False, style="paper")
    return {"loss": evaluate(loss, logits=logit(inputs["p"]), target=inputs["t"])}


@adapter("anyloss")
def anyloss(inputs: Inputs, params: Inputs) -> Inputs:
    if params["metric"] == "f1":
        only(params, "beta", None, 1.0)
    names = {"acc": "accuracy", "fbeta": "f_beta", "f1": "f_beta", "balacc": "balanced_accuracy"}
    score: Any = names.get(params["metric"], params["metric"])
    if score not in SCORES:
        raise NotBuilt(f"metric {score!r}")
    beta = params.get("beta") or 1.0
    loss = AnyLoss(score, beta, params.get("L", 73.0), params.get("threshold", 0.5))
    return {"loss": evaluate(loss, logits=inputs["logits"], target=inputs["target"])}


# -- ordinal and regression ------------------------------------------------------------------------


@adapter("coral")
def coral(inputs: Inputs, params: Inputs) -> Inputs:
    if "levels" in inputs:
        assert bool((inputs["levels"].sum(1) == inputs["target"]).all())
    return on_logits(Coral(params.get("importance_weights")), inputs, params, levels=True)


@adapter("corn")
def corn(inputs: Inputs, params: Inputs) -> Inputs:
    normalisers = {"number of (example,task) pairs": "pairs", "num_classes": "classes"}
    only(params, "normaliser", *normalisers)
    by: Any = normalisers[params.get("normaliser", "number of (example,task) pairs")]
    loss = Corn(inputs["logits"].shape[1] + 1, by)
    return on_logits(loss, inputs, params, levels=True)


@adapter("ordinal_softmax")
def ordinal(inputs: Inputs, params: Inputs) -> Inputs:
    if bool((inputs["logits"].diff(dim=-1) > -1e-4).any()):
        raise NotBuilt("logits out of order: the source takes the log of a negative number")
    found = on_logits(OrdinalNLL(), inputs, params, levels=True)
    return found | {"probs": ordinal_softmax(inputs["logits"])}


@adapter("presto")
def presto(inputs: Inputs, params: Inputs) -> Inputs:
    # The source's levels are P(y <= k), ours P(y > k); its matrix is (D, K - 1).
    logits = -(inputs["alpha"] + inputs["x"] @ inputs["Beta"])
    penalty = evaluate(AdjacentLasso(), module=Weights(inputs["Beta"].t()))
    found = on_logits(OrdinalNLL(), inputs | {"logits": logits}, params, levels=True)
    return {"loss": found["loss"] + params["lam"] * penalty}


@adapter("two_hot")
def two_hot(inputs: Inputs, params: Inputs) -> Inputs:
    atoms = torch.tensor(params["support"], dtype=torch.float64)
    if float(atoms.diff().diff().abs().max() if len(atoms) > 2 else 0) > 1e-9:
        raise NotBuilt("atoms at unequal distances")
    transform = TwoHot(float(atoms[0]), float(atoms[-1]), len(atoms))
    found = on_logits(Term(CrossEntropy(), target_transform=transform), inputs, params)
    return found | {"target_probs": transform(inputs["target"])}


@adapter("pseudo_huber")
def pseudo_huber(inputs: Inputs, params: Inputs) -> Inputs:
    c, by_size = params.get("c", 1.0), "0.00054*sqrt(d)"
    if isinstance(c, str) and c != by_size:
        raise NotBuilt(f"c = {c}")
    only(params, "d", inputs["x"].shape[1])
    loss = PseudoHuber(None if c == by_size else c)
    return {"loss": evaluate(loss, estimate=inputs["x"], reference=inputs["y"])}


@adapter("loss.pinball")
def pinball(inputs: Inputs, params: Inputs) -> Inputs:
    loss = Pinball([params["tau"]])
    return {"loss": evaluate(loss, quantiles=inputs["mu"][:, None], target=inputs["y"])}


# -- segmentation ----------------------------------------------------------------------------------


def on_maps(loss: torch.nn.Module, logit_map: Tensor, label_map: Tensor) -> Tensor:
    return evaluate(loss, logit_map=logit_map, label_map=label_map.long().squeeze(1))


@adapter("tversky")
def tversky(inputs: Inputs, params: Inputs) -> Inputs:
    # MONAI's options with its defaults.
    only(params, "reduction", "mean")
    only(params, "to_onehot_y", True)  # the targets of the cases are indices
    if not params.get("softmax", False) or params.get("sigmoid", False):
        raise NotBuilt("probabilities as given, or of a sigmoid")
    smooth = params.get("smooth_nr", 1e-5)
    if smooth != params.get("smooth_dr", 1e-5):
        raise NotBuilt("two smoothing constants")
    over: Any = "batch" if params.get("batch", False) else "image"
    loss = Tversky(
        params.get("alpha", 0.5),
        params.get("beta", 0.5),
        smooth,
        over=over,
        background=bool(params.get("include_background", True)),
    )
    return {"loss": on_maps(loss, inputs["logits"], inputs["target"])}


@adapter("focal_tversky")
def focal_tversky(inputs: Inputs, params: Inputs) -> Inputs:
    a, smooth = params.get("alpha", 0.7), params.get("smooth", 1.0)
    loss = Tversky(1 - a, a, smooth, params.get("gamma", 0.75), over="batch")
    p, y = inputs["y_pred"], inputs["y_true"]  # all entries are one set
    return {"loss": on_maps(loss, logit(p).reshape(1, 1, -1), y.reshape(1, 1, -1))}


@adapter("dice_ce")
def dice_ce(inputs: Inputs, params: Inputs) -> Inputs:
    weights, dice = params.get("weights", 1), params.get("lambda_dice", 1.0)
    classes = inputs["logits"].shape[1]
    per_class = weights if isinstance(weights, list) else [float(weights)] * classes
    loss = DiceCE(
        dice,
        params.get("lambda_ce", 1.0),
        params.get("eps", 1e-5),
        class_weight=per_class,
        divide_by="pixels",  # the source's
    )
    # The source takes minus Dice, ours is 1 minus Dice.
    return {"loss": on_maps(loss, inputs["logits"], inputs["target"]) - dice}


@adapter("soft_cldice")
def soft_cldice(inputs: Inputs, params: Inputs) -> Inputs:
    iterations, smooth = params.get("iter_", 3), params.get("smooth", 1.0)
    loss = SoftClDice(iterations, smooth, over="image")
    p, t = inputs["y_pred"], inputs["y_true"]
    lines, true_lines = (reference.soft_skeleton(x, iterations) for x in (p, t))
    scores = []
    for image in range(len(p)):
        precision = ((lines * t)[image].sum() + smooth) / (lines[image].sum() + smooth)
        recall = ((true_lines * p)[image].sum() + smooth) / (true_lines[image].sum() + smooth)
        scores.append(1 - 2 * precision * recall / (precision + recall))
    ours = torch.stack(scores).mean()
    raise Deviates(
        "MONAI adds 1e-4 to the last denominator",
        on_probabilities(loss, inputs),
        {"loss": ours, "backward": ours},
    )


@adapter("soft_dice_cldice")
def soft_dice_cldice(inputs: Inputs, params: Inputs) -> Inputs:
    names = {"num_iter": 10, "smooth": 1.0, "alpha": 0.5}
    loss = SoftClDice(*(params.get(name, default) for name, default in names.items()))
    return on_probabilities(loss, inputs)


def on_probabilities(loss: SoftClDice, inputs: Inputs) -> Inputs:
    """Not through logits: rounding would break the ties of the pools, which decide gradients."""
    p, t = inputs["y_pred"], inputs["y_true"]
    return {"loss": loss.of_probabilities(p, t, torch.ones_like(t[:, :1], dtype=torch.bool))}


@adapter("skeleton_recall")
def skeleton_recall(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "do_bg", False)
    over: Any = "batch" if params.get("batch_dice", True) else "image"
    skeleton = inputs["skeleton"].long().squeeze(1)
    loss = SkeletonRecall(params.get("smooth", 1.0), over)
    # The source takes minus the recall, ours is 1 minus the recall.
    return {"loss": evaluate(loss, logit_map=inputs["logits"], skeleton_map=skeleton) - 1}


@adapter("region_wise")
def region_wise(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "rwmap", "rrwmap")
    labels_map = inputs["target"].long().squeeze(1)
    maps = [rectified_map(labels_map == c) for c in range(inputs["logits"].shape[1])]
    prices = torch.stack(maps, 1)
    return {"loss": evaluate(RegionWise(), logit_map=inputs["logits"], region_map=prices)}


def rectified_map(inside: Tensor) -> Tensor:
    """1 outside; inside minus the distance to the outside over the largest one of the image."""
    out = torch.ones_like(inside, dtype=torch.float64)
    for image, mask in enumerate(inside):
        if not bool(mask.any()) or bool(mask.all()):
            continue
        here, there = mask.nonzero().double(), (~mask).nonzero().double()
        distance = torch.cdist(here, there).amin(1)
        out[image][mask] = -distance / (distance.max() + 1e-8)
    return out


# -- bags, lists, attributes -----------------------------------------------------------------------


@adapter("aggregate_responses")
def aggregate_responses(inputs: Inputs, params: Inputs) -> Inputs:
    bag = inputs["bag_id"]
    target = inputs["ybar"][bag]
    loss = AggregateResponses(params.get("rho", 0.0))
    return {"loss": evaluate(loss, logits=inputs["pred"], bag_id=bag, bag_target=target)}


@adapter("llp_proportion")
def llp_proportion(inputs: Inputs, params: Inputs) -> Inputs:
    bag = inputs["bag_id"]
    named = {"logits": inputs["logits"], "bag_id": bag, "bag_proportion": inputs["prop"][bag]}
    return {"loss": evaluate(LabelProportion(), **named)}


@adapter("dcov_unbiased", "ccdcov", "jdcov")
def distance_covariance(inputs: Inputs, params: Inputs) -> Inputs:
    joint = "c" in params
    loss = DistanceCovariance(joint, params["c"] if joint else 1.0, probabilities=False)
    columns = [v for name, v in inputs.items() if name != "pred"]
    columns = [c[:, None] if c.ndim == 1 else c for c in columns]
    sensitive = torch.cat([c.double() for c in columns], 1)
    return {"loss": evaluate(loss, logits=inputs["pred"], sensitive=sensitive)}


@adapter("cs_divergence", "cs_qmi", "kde_kl")
def kernel_divergence(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "log_base", 2)
    kinds = [KdeKL, CSMutualInformation, CSDivergence]  # of y and its estimate, of x and y, of all
    kind = kinds[2 if len(inputs) == 3 else "x" in inputs]
    words = {"x": "features", "y": "reference", "yhat": "estimate"}
    named = {words[name]: value for name, value in inputs.items()}
    return {"loss": evaluate(kind(params.get("sigma", 1.0)), **named)}


@adapter("pa_bce")
def pa_bce(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "log", "log10(1+d)")
    z, profit = inputs["scores"], inputs["pnl"]
    inputs.get("target")  # labels, which the source does not use either
    lists = torch.arange(len(z))[:, None].expand_as(z).reshape(-1) if z.ndim == 2 else None
    named = {"logits": z.reshape(-1), "profit": profit.reshape(-1), "list_id": lists}
    return {"loss": evaluate(ProfitAwareBCE(params.get("top_k", 6)), **named)}


@adapter("tri_bce")
def tri_bce(inputs: Inputs, params: Inputs) -> Inputs:
    loss = TriBCE(bool(params.get("detach_weights", False)))
    branches = {"logits_deep": inputs["logit_d"], "logits_shallow": inputs["logit_s"]}
    found = evaluate(loss, **branches, target=labels(inputs))
    return {"loss": found}


# -- heads -----------------------------------------------------------------------------------------


def on_head(head: torch.nn.Module, named: Inputs, *given: Tensor, target: Tensor) -> Inputs:
    """Cross-entropy of a head whose parameters are the case's."""
    logits = functional_call(head, named, given)
    return {"loss": evaluate(CrossEntropy(), logits=logits, target=target)}


DISTANCES = {
    "cosine_stable": "cosine",
    "braycurtis": "bray_curtis",
    "braycurtis_abs": "bray_curtis",
    "hamming_soft": "hamming",
    "mahalanobis_diag": "mahalanobis",
}


@adapter("harmonic_distance")
def harmonic_distance(inputs: Inputs, params: Inputs) -> Inputs:
    weight = inputs["weight"]
    kind = params["distance"]
    name: Any = DISTANCES.get(kind, kind)
    if name not in get_args(Distance):
        raise NotBuilt(f"distance {name!r}")
    classes, dim = weight.shape
    n, eps = params.get("n", 1.0), params.get("eps", 1e-4)
    if name == "bray_curtis":
        eps = params.get("bc_eps", 1e-3)
    p = params.get("p", 1.5) if name == "minkowski" else 1.5
    head = HarmonicDistanceHead(dim, classes, name, n, eps, p)
    named = {"weight": weight}
    if name == "mahalanobis":
        named["log_precision"] = torch.tensor(params["prec"], dtype=torch.float64).log()
    found = on_head(head, named, inputs["x"], target=inputs["target"])
    if kind == "braycurtis":
        x, w = inputs["x"][:, None], weight[None]
        far = (x - w).abs().sum(-1) / ((x.abs() + w.abs()).sum(-1) + eps) + eps
        score = (-n * far.log()).log_softmax(1)
        ours = -score.gather(1, inputs["target"][:, None]).mean()
        raise Deviates(
            "the signed sum of Bray-Curtis is near 0 for centred features; ours is of absolute "
            "values",
            found,
            {"loss": ours, "backward": ours},
        )
    return found


@adapter("fourier_head")
def fourier_head(inputs: Inputs, params: Inputs) -> Inputs:
    head = FourierHead(
        inputs["x"].shape[1],
        params["bins"],
        params["num_frequencies"],
        params.get("gamma", 0.0),
        params.get("const_inverse_softmax", 1e-5),
    )
    named = {"linear.weight": inputs["weight"], "linear.bias": inputs["bias"]}
    log_probs = functional_call(head, named, (inputs["x"],))
    penalty = torch.zeros(()) if head.aux_loss is None else head.aux_loss
    loss = evaluate(CrossEntropy(), logits=log_probs, target=inputs["target"])
    return {"loss": loss + penalty, "log_probs": log_probs, "reg": penalty}


@adapter("normalized_softmax")
def normalized_softmax(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean")
    head = NormalizedHead(*inputs["weight"].shape[::-1], scale=1 / params.get("temperature", 0.05))
    return on_head(head, {"weight": inputs["weight"]}, inputs["embeddings"], target=labels(inputs))


@adapter("cosface")
def cosface(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduction", "mean")
    scale, margin = params.get("scale", 64), params.get("margin", 0.35)
    head = CosFaceHead(*inputs["weight"].shape[::-1], scale, margin)
    y = labels(inputs)
    return on_head(head, {"weight": inputs["weight"]}, inputs["embeddings"], y, target=y)


@adapter("arcface")
def arcface(inputs: Inputs, params: Inputs) -> Inputs:
    """Margins in radians are insightface's: straight through, without guard."""
    only(params, "reduction", "mean")
    theirs = "margin_radians" in params
    margin = (
        params["margin_radians"] if theirs else math.radians(params.get("margin_degrees", 28.6))
    )
    gradient: Any = "straight_through" if theirs else "exact"
    scale = params.get("scale", 64)
    head = ArcFaceHead(*inputs["weight"].shape[::-1], scale, margin, gradient, guard=not theirs)
    y = labels(inputs)
    return on_head(head, {"weight": inputs["weight"]}, inputs["embeddings"], y, target=y)


@adapter("hyperbolic_ce")
def hyperbolic_ce(inputs: Inputs, params: Inputs) -> Inputs:
    head = HyperbolicMLR(*inputs["a"].shape[::-1], params.get("c", 1.0))
    named = {"normal": inputs["a"], "point": inputs["p"]}
    found = on_head(head, named, inputs["features"], target=labels(inputs))
    found |= {"logits": functional_call(head, named, (inputs["features"],))}
    z = in_the_ball(inputs["features"], inputs["p"], inputs["a"], params.get("c", 1.0))
    ours = evaluate(CrossEntropy(), logits=z, target=labels(inputs))
    reason = "official code adds 1e-5 to a denominator, ours does not"
    raise Deviates(reason, found, {"loss": ours, "logits": z, "backward": ours})


def in_the_ball(v: Tensor, point: Tensor, normal: Tensor, c: float) -> Tensor:
    """Hyperbolic logits by Moebius addition of points of the ball, term by term."""

    def into(u: Tensor) -> Tensor:
        reach = c**0.5 * u.norm(dim=-1, keepdim=True)
        return u * reach.tanh() / reach

    columns = []
    for p, a in zip(into(point), normal, strict=True):
        x, p, a = into(v), -p, a * (1 - c * (p @ p))
        xp, xx, pp = x @ p, x.square().sum(1), p @ p
        above = (1 + 2 * c * xp + c * xx)[:, None] * p + (1 - c * pp) * x
        m = above / (1 + 2 * c * xp + c**2 * xx * pp)[:, None]
        slope = 2 * c**0.5 * (m @ a) / (a.norm() * (1 - c * m.square().sum(1)))
        columns.append(2 / (1 - c * pp) * a.norm() / c**0.5 * slope.asinh())
    return torch.stack(columns, 1)
