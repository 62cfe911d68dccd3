# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Measures by group, and the value of a sample."""

from __future__ import annotations

from itertools import combinations
from typing import Any

import torch
from torch import Tensor

from adapters.table import adapter, only
from lightning_losses.metrics.groups.by_group import (
    by_group,
    js_distance,
    quantile_bins,
    worst_group,
)
from lightning_losses.metrics.sample_value.history import SampleHistory
from lightning_losses.metrics.sample_value.scores import (
    el2n,
    errors,
    last_layer_norm,
    margin,
    mean_gradient,
    tracin,
)
from lightning_losses.softmax import softmax_stats

Inputs = dict[str, Any]


def statistics(logits: Tensor, target: Tensor) -> Any:
    return softmax_stats(logits, target=target.long())


@adapter("loss_by")
def loss_by(inputs: Inputs, params: Inputs) -> Inputs:
    logits, target = inputs["logits"], inputs["target"].long()
    stats = statistics(logits, target)
    right = (stats.prediction == target).double()
    rows = torch.stack([-stats.log_prob, stats.entropy, right, stats.confidence], 1)
    if "bins" in params:
        edges, place = quantile_bins(inputs["value"], params["bins"])
        groups = by_group(place, rows)
        return {
            "edges": edges, "bin": place, "count": groups.count, "loss": groups.means[:, 0],
        }  # fmt: skip
    ids = inputs["group"]
    groups, mean = by_group(ids, rows), by_group(ids, logits.softmax(1)).means
    loss, entropy, accuracy, confidence = groups.means.unbind(1)
    worst = worst_group(loss, groups.count)
    assert worst is not None
    pairs = list(combinations(range(len(mean)), 2))
    names = [f"{int(groups.ids[a])}-{int(groups.ids[b])}" for a, b in pairs]
    return {
        "count": groups.count,
        "loss": loss,
        "entropy": entropy,
        "accuracy": accuracy,
        "confidence": confidence,
        "worst_group": groups.ids[worst.place],
        "worst_loss": worst.value,
        "gap_worst_to_mean_of_rows": worst.to_mean,
        "gap_worst_to_best": worst.to_best,
        "js_distance_pairs": {
            n: js_distance(mean[a], mean[b]) for n, (a, b) in zip(names, pairs, strict=True)
        },
        "js_distance_pairs_base2": {
            n: js_distance(mean[a], mean[b], 2.0) for n, (a, b) in zip(names, pairs, strict=True)
        },
    }


@adapter("sample_value.el2n")
def sample_el2n(inputs: Inputs, params: Inputs) -> Inputs:
    target = inputs["target"].long()
    runs = inputs["logits_by_run"] if "logits_by_run" in inputs else inputs["logits"][None]
    each = []
    for logits in runs:
        stats = statistics(logits, target)
        each.append(el2n(stats.log_prob, stats.collision))
    scores = torch.stack(each)
    error = errors(runs[0], target)
    others = error.scatter(1, target[:, None], -torch.inf).amax(1)
    own = error.gather(1, target[:, None])[:, 0]
    return {
        "el2n": scores.mean(0),
        "el2n_by_run": scores,
        "el2n_squared": scores[0].square(),
        "l1_error": error.abs().sum(1),
        "max_margin_error": others - (own + 1),
    }


@adapter("sample_value.grand")
def sample_grand(inputs: Inputs, params: Inputs) -> Inputs:
    features, target = inputs["features"], inputs["target"].long()
    # The source keeps the weight as (D, C).
    logits = features @ inputs["weight"] + inputs["bias"]
    stats = statistics(logits, target)
    score = el2n(stats.log_prob, stats.collision)
    norm = last_layer_norm(score, features)
    return {
        "grand": norm,
        "grand_without_bias": last_layer_norm(score, features, bias=False),
        "last_layer_factorised": norm,
    }


@adapter("sample_value.aum")
def sample_aum(inputs: Inputs, params: Inputs) -> Inputs:
    target, ids = inputs["target"].long(), inputs["sample_index"].tolist()
    place = torch.arange(len(ids))
    history, after = SampleHistory(), []
    for logits, order in zip(
        inputs["logits_by_epoch"], inputs["order_by_epoch"].long(), strict=True
    ):
        rows = place[order]  # a batch after the other does the same as one
        values = torch.zeros(len(rows), 4, dtype=torch.float64)
        values[:, 1] = margin(logits[rows], target[rows])
        right = logits[rows].argmax(1) == target[rows]
        history.add(rows, right, values, target[rows], target[rows])
        after.append(history.table()["aum"])
    by_sample = torch.stack(after, 1)
    return {
        "aum": after[-1],
        "aum_after_epoch": {str(i): row for i, row in zip(ids, by_sample, strict=True)},
    }


@adapter("sample_value.forgetting")
def sample_forgetting(inputs: Inputs, params: Inputs) -> Inputs:
    history = SampleHistory()
    correct = inputs["correct_by_presentation"]
    index = torch.arange(correct.shape[1])
    for right in correct.bool():
        zeros = torch.zeros_like(index)
        history.add(index, right, torch.zeros(len(index), 4).double(), zeros, zeros)
    table = history.table()
    learned = table["learned"].double()
    return {
        "events": table["forgotten"],
        "never_learned": table["sample_index"][table["learned"] == 0],
        "first_learned": torch.where(learned > 0, learned - 1, torch.nan),
        "presentations_until_learned": table["last_wrong"],
    }


@adapter("sample_value.tracin_last_layer")
def sample_tracin(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "reduce", None, "mean")
    x, y = inputs["features"], inputs["target"].long()
    xv, yv = inputs["validation_features"], inputs["validation_target"].long()
    found: Inputs = {}
    for bias in (True, False):
        influence: Any = 0.0
        own: Any = 0.0
        for at in inputs["checkpoints"]:
            weight, shift = (
                torch.as_tensor(at[n], dtype=torch.float64) for n in ("weight", "bias")
            )
            error, other = errors(x @ weight.T + shift, y), errors(xv @ weight.T + shift, yv)
            mean = mean_gradient(other, xv, bias)
            if params.get("reduce") == "mean":
                influence = influence + at["lr"] * tracin(error, x, mean, bias)
            else:
                each = [
                    tracin(error, x, mean_gradient(other[j : j + 1], xv[j : j + 1], bias), bias)
                    for j in range(len(xv))
                ]
                influence = influence + at["lr"] * torch.stack(each)
            own = own + at["lr"] * last_layer_norm(error.norm(dim=1), x, bias).square()
        ending = "" if bias else "_without_bias"
        found |= {f"influence{ending}": influence, f"self_influence{ending}": own}
        if bias:
            found["mean_validation_gradient"] = mean
    return found
