# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Groups, scores of the confusion matrix, hard mining, memory of earlier tasks, topology."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.table import NotBuilt, adapter, evaluate, only
from lightning_losses import Objective, Term
from lightning_losses.losses import AnyLoss, CrossEntropy, Dice, MulticlassMCC
from lightning_losses.metrics.importance.fisher import KINDS, fisher_diagonal
from lightning_losses.metrics.topology.betti import BettiError, betti_error, betti_numbers
from lightning_losses.penalties.elastic import Elastic
from lightning_losses.weighting import GroupDRO

Inputs = dict[str, Any]


@adapter("group_dro")
def group_dro(inputs: Inputs, params: Inputs) -> Inputs:
    names = {
        "step_size": "step_size",
        "adjustment": "adjustment",
        "normalize_loss": "normalize",
        "method": "method",
        "alpha": "alpha",
        "gamma": "gamma",
        "absent": "absent",
    }
    settings = {ours: params[theirs] for theirs, ours in names.items() if theirs in params}
    dro = GroupDRO(params["n_groups"], group_counts=params["group_counts"], **settings).double()
    objective = Objective({"loss": Term(CrossEntropy(), row_weighting=dro)})
    found: Inputs = {
        "loss_by_step": [],
        "grad_logits_by_step": [],
        "group_weights_by_step": [],
        "exp_avg_loss_by_step": [],
    }
    steps = zip(
        inputs["logits_by_step"], inputs["target_by_step"], inputs["group_by_step"], strict=True
    )
    for step, (logits, target, group) in enumerate(steps):
        objective.set_step(step)
        z = torch.as_tensor(logits, dtype=torch.float64).requires_grad_()
        y, g = torch.as_tensor(target).long(), torch.as_tensor(group).long()
        total = objective(z, y, group_id=g).total
        found["loss_by_step"].append(total)
        found["grad_logits_by_step"].append(torch.autograd.grad(total, z)[0])
        dro.commit()
        found["group_weights_by_step"].append(dro.group_weights)
        found["exp_avg_loss_by_step"].append(dro.running.clone())
    rows = found["grad_logits_by_step"]
    return found | {"grad_logits_by_step": [grad.tolist() for grad in rows]}


@adapter("any_score")
def any_score(inputs: Inputs, params: Inputs) -> Inputs:
    name, steepness = params["score"], params["amplification"]
    if name == "mcc_multiclass":
        only(params, "amplification", None)
        loss: nn.Module = MulticlassMCC()
        logits, target = inputs["logits"], inputs["target"]
        decided = 1e9 * torch.eye(logits.shape[1], dtype=logits.dtype)[logits.argmax(1)]
        return {
            "loss": evaluate(loss, logits=logits, target=target),
            "confusion": loss.confusion(logits, target),
            "hard_score": 1 - evaluate(loss, logits=decided, target=target),
        }
    beta = 1.0
    if name.startswith("fbeta"):
        name, beta = "f_beta", float(name.removeprefix("fbeta") or 1)
    threshold = params.get("threshold", 0.5)
    loss = AnyLoss(name, beta, steepness, threshold)
    hard = AnyLoss(name, beta, 1e9, threshold)  # decisions as good as 0 and 1
    logits, target = inputs["logits"], inputs["target"]
    score = 1 - evaluate(hard, logits=logits.detach(), target=target)
    return {
        "loss": evaluate(loss, logits=logits, target=target),
        "counts": loss.counts(logits, target)[:, 0],
        "hard_score": score,
        "sklearn_hard_score": score,
    }


@adapter("dice_ohem")
def dice_ohem(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "require_predicted", True)
    style = params.get("style", "repo")
    loss = Dice(
        params["alpha"], params["smooth"], params["square_denominator"], style, params["ratio"]
    )
    logits, target = inputs["logits"], inputs["target"]
    classes = logits.shape[1] if logits.ndim == 2 else 1
    z = logits.detach().reshape(len(logits), classes)
    if classes == 1:
        log_p, t = z, target[:, None].double()
    else:
        log_p, t = z.log_softmax(1), torch.eye(classes, dtype=z.dtype)[target.long()]
    kept = loss.kept(log_p, t)
    return {
        "loss": evaluate(loss, logits=logits, target=target),
        "kept": kept[:, 0],
        "kept_by_class": kept.T,
    }


@adapter("betti_error")
def betti(inputs: Inputs, params: Inputs) -> Inputs:
    prediction, target = (inputs[n][None] for n in ("prediction", "target"))
    if "patch" in params:
        metric = BettiError(params["connectivity"], params["patch"])
        metric.update(prediction, target)
        return metric.compute()
    found = {}
    for connectivity in (8, 4):
        errors = betti_error(prediction, target, connectivity)[0]
        found[f"connectivity_{connectivity}"] = {
            "prediction": betti_numbers(prediction, connectivity)[0],
            "target": betti_numbers(target, connectivity)[0],
            "error_0": errors[0],
            "error_1": errors[1],
            "error": errors.sum(),
        }
    return found


@adapter("elastic.fisher")
def elastic_fisher(inputs: Inputs, params: Inputs) -> Inputs:
    kind = params["kind"]
    x, y = inputs["features"], inputs["target"]
    if kind not in KINDS:
        raise NotBuilt(f"kind={kind!r}, neither the true nor the empirical Fisher")
    weight, bias = (inputs[n].detach().requires_grad_() for n in ("weight", "bias"))
    rows = (
        ((x[i : i + 1] @ weight.T + bias).log_softmax(1), y[i : i + 1].long())
        for i in range(len(x))
    )
    total, count = fisher_diagonal({"weight": weight, "bias": bias}, rows, kind)
    return {f"fisher_{name}": value / count for name, value in total.items()}


class Linear(nn.Module):
    """A model with these parameters; plain tensors, so that gradients reach the inputs."""

    def __init__(self, **tensors: Tensor) -> None:
        super().__init__()
        self.tensors = tensors

    def named_parameters(self, *args: Any, **kwargs: Any) -> Any:
        return iter(self.tensors.items())


@adapter("elastic.penalty")
def elastic_penalty(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "mode", "separate", "online")
    gamma = params.get("gamma", 1.0) if params["mode"] == "online" else None
    loss = Elastic(gamma=gamma)
    for fisher, anchor in zip(inputs["fisher"], inputs["anchor"], strict=True):
        fisher, anchor = (
            {n: torch.as_tensor(v, dtype=torch.float64) for n, v in one.items()}
            for one in (fisher, anchor)
        )
        loss.remember(Linear(**{n: v.requires_grad_() for n, v in anchor.items()}), fisher)
    model = Linear(weight=inputs["weight"], bias=inputs["bias"])
    found = {f"fisher_{name}": pair[0] for name, pair in loss.memory.items()}
    return found | {"loss": evaluate(Term(loss, weight=params["strength"]), module=model)}
