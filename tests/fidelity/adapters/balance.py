# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Weights of terms that find themselves."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import Leading, NotBuilt, adapter, only
from lightning_losses.callbacks import DWA, Aggregator, GradNorm, ReLoBRaLo, Uncertainty

Inputs = dict[str, Any]


@adapter("balance.uncertainty")
def uncertainty(inputs: Inputs, params: Inputs) -> Inputs:
    form, kinds = params["form"], params.get("kinds")
    only(params, "optimizer", None, "sgd")
    rule = Uncertainty(params.get("lr", 0.1), form, kinds)
    name = "sigma" if form == "revised" else "log_variance"
    start = inputs[name].detach()
    rule.start(len(start))
    rule.parameters = start.tolist()
    if "losses_by_step" in inputs:
        found: Inputs = {"loss_by_step": [], f"{name}_by_step": []}
        for losses in inputs["losses_by_step"].tolist():
            found["loss_by_step"].append(rule.value(losses))
            rule.update(losses)
            found[f"{name}_by_step"].append(list(rule.parameters))
        return found
    # A controller, in whose place the gradients of a learned parameter are written out.
    losses = inputs["losses"]
    weights = torch.tensor(rule.current(), dtype=torch.float64)
    slope = torch.tensor(rule.gradient(losses.tolist()), dtype=torch.float64)
    value = rule.value(losses.tolist())
    backward = (weights * losses).sum() + (slope * inputs[name]).sum()
    return {"loss": value, "weights": weights, "backward": backward}


@adapter("balance.dwa")
def dwa(inputs: Inputs, params: Inputs) -> Inputs:
    rule = DWA(params["temperature"])
    epochs = inputs["losses"]
    rule.start(epochs.shape[2])
    weights, values = [list(rule.weights)], []
    for epoch in epochs:
        now = torch.tensor(rule.weights, dtype=torch.float64)
        values.append((epoch * now).sum(1))
        rule.update(epoch.mean(0).tolist())
        weights.append(list(rule.weights))
    # The weights before each epoch, and those of the epoch that would follow.
    rows = torch.tensor(weights, dtype=torch.float64)
    return {
        "weights_by_epoch": Leading(rows),
        "loss_by_epoch_and_batch": torch.stack(values),
    }


@adapter("balance.relobralo")
def relobralo(inputs: Inputs, params: Inputs) -> Inputs:
    rule = ReLoBRaLo(temperature=params["temperature"])
    steps = inputs["losses_by_step"]
    rule.start(steps.shape[1])
    alphas = params.get("alpha_by_step") or [params["alpha"]] * len(steps)
    weights, values = [], []
    for losses, alpha, rho in zip(steps, alphas, inputs["rho_by_step"].tolist(), strict=True):
        weights.append(list(rule.step(losses.tolist(), alpha, bool(rho))))
        values.append((losses * torch.tensor(weights[-1], dtype=torch.float64)).sum())
    return {"weights_by_step": weights, "loss_by_step": values}


@adapter("balance.gradnorm")
def gradnorm(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "optimizer", "sgd")
    rule = GradNorm(params["alpha"], params["lr"], window=1)
    losses = inputs["losses"].tolist()
    norms = inputs["gradients"].norm(dim=1)
    rule.start(len(losses))
    rule.weights = inputs["weights"].tolist()
    rule.first, rule.seen = inputs["initial_losses"].tolist(), [1] * len(losses)
    lengths = norms * inputs["weights"].detach()
    targets = torch.tensor(rule.targets(losses, norms.tolist()), dtype=torch.float64)
    slopes = torch.tensor(rule.gradient(losses, norms.tolist()), dtype=torch.float64)
    return {
        "norms": lengths,
        "targets": targets,
        "loss": (lengths - targets).abs().sum(),
        "backward": (slopes * inputs["weights"]).sum(),
        "weights_after": rule.update(losses, norms.tolist()),
    }


@adapter("balance.aggregator")
def aggregator(inputs: Inputs, params: Inputs) -> Inputs:
    options = {key: value for key, value in params.items() if key != "name"}
    name = params["name"]
    if name in ("UPGrad", "DualProj"):  # theirs, where ours are exact
        options = {"norm_eps": 1e-4, "reg_eps": 1e-4} | options
    try:
        rule = Aggregator(name, **options)
    except ValueError as error:
        raise NotBuilt(f"name={name!r}, not a function of inner products") from error
    except ImportError as error:
        raise NotBuilt(f"name={name!r}: {error}") from error
    jacobian = inputs["jacobian"]
    weights = torch.tensor(rule.weights(jacobian @ jacobian.T), dtype=torch.float64)
    direction = weights @ jacobian
    return {
        "direction": direction,
        "weights": weights,
        "inner_products": jacobian @ direction,
    }
