# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Policy losses on given log-probabilities, advantages, and what watches their entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.table import Deviates, NotBuilt, Term, Within, adapter, evaluate, only
from lightning_losses import LossRecord, Objective
from lightning_losses.callbacks.controllers.entropy_target import Coefficient
from lightning_losses.losses import (
    CISPO,
    DPO,
    EntropyMinimization,
    KLEstimator,
    MarginalEntropy,
    TeacherSymmetricCE,
)
from lightning_losses.losses.policy.advantage import grpo_advantage as group_advantage
from lightning_losses.losses.policy.clip_cov import ClipCov
from lightning_losses.losses.policy.kl_cov import KLCov
from lightning_losses.losses.policy.ppo_clip import PPOClip
from lightning_losses.losses.shared.token_covariance import token_covariance
from lightning_losses.metrics.training_curve.entropy_law import entropy_law
from lightning_losses.weighting.sequence import SequenceWeight

Inputs = dict[str, Any]

#: Names of aggregations in the sources, as the arguments of `SequenceWeight`.
AGGREGATIONS = {
    "token-mean": None,
    "bnpo": None,
    "dapo": None,
    "seq-mean-token-mean": "sequence_mean",
    "grpo": "sequence_mean",
    "seq-mean-token-sum": "sequence_sum",
    "dr_grpo": "sequence_sum",
    "seq-mean-token-sum-norm": "sum",
}


def aggregated(loss: nn.Module, params: Inputs, mask: Tensor, name: str) -> Term:
    """The loss under the aggregation that a case names."""
    mode = str(params.get(name, "token-mean"))
    if mode not in AGGREGATIONS:
        raise NotBuilt(f"aggregation {mode}")
    length = 1.0
    if mode == "seq-mean-token-sum-norm":
        length = params.get("loss_scale_factor") or mask.shape[1]
    elif mode == "dr_grpo":
        length = params["max_completion_length"]
    kind = AGGREGATIONS[mode]
    weighting = None if kind is None else SequenceWeight(kind, float(length))  # type: ignore[arg-type]
    return Term(loss, aggregation=weighting)


def sequences(mask: Tensor) -> Tensor:
    """Row t of response b belongs to b."""
    return torch.arange(len(mask))[:, None].expand(mask.shape)


def of_actions(term: Term | nn.Module, inputs: Inputs, reduction: str = "mean") -> Tensor:
    """The objective on two classes, of which the one that was taken has the given log p."""
    total: Tensor = record_of(term, inputs, reduction).total
    return total


def metrics(term: Term | nn.Module, inputs: Inputs) -> Inputs:
    """What verl logs beside the loss, from the record's diagnostics."""
    told = record_of(term, inputs).diagnostics
    return {
        "actor/pg_clipfrac": told.get("loss/clip_fraction"),
        "actor/ppo_kl": told["loss/kl"],
        # Losses without a dual clip have no share of it.
        "actor/pg_clipfrac_lower": told.get("loss/dual_clip_fraction", torch.zeros(())),
    }


def record_of(term: Term | nn.Module, inputs: Inputs, reduction: str = "mean") -> LossRecord:
    """As `of_actions`, with all that it leaves behind."""
    log_prob, mask = inputs["log_prob"], inputs["response_mask"]
    return Objective({"loss": term}, reduction=reduction)(
        logits=torch.stack([log_prob, (-torch.expm1(log_prob)).log()], -1),
        target=torch.zeros(log_prob.shape, dtype=torch.int64),
        old_log_prob=inputs["old_log_prob"],
        advantage=inputs["advantages"],
        mask=mask.bool(),
        sequence_id=sequences(mask),
    )


@adapter("ppo_clip")
def ppo_clip(inputs: Inputs, params: Inputs) -> Inputs:
    loss = PPOClip(*clip_range(params), params.get("clip_ratio_c", 3.0))
    term = aggregated(loss, params, inputs["response_mask"], "loss_agg_mode")
    found = of_actions(term, inputs)
    # Sources divide a response by its length + 1e-8: a loss of 2 a token changes by that much.
    loss_within = Within(found, above=2e-8, below=2e-8)
    return {"loss": loss_within, "backward": found, "metrics": metrics(term, inputs)}


def clip_range(params: Inputs) -> tuple[float, float]:
    """How far below and above 1 the ratio may go."""
    both = params.get("clip_ratio", 0.2)
    low, high = (params.get(f"clip_ratio_{end}") for end in ("low", "high"))
    return both if low is None else low, both if high is None else high


@adapter("grpo_trl")
def grpo_trl(inputs: Inputs, params: Inputs) -> Inputs:
    if params.get("delta") is not None:
        raise NotBuilt("delta, a cap of the ratio for either sign of the advantage")
    low, high = params.get("epsilon", 0.2), params.get("epsilon_high")
    loss = PPOClip(low, low if high is None else high, None)
    _ = params.get("max_completion_length")  # of dr_grpo alone
    term = aggregated(loss, params, inputs["response_mask"], "loss_type")
    return {"loss": of_actions(term, inputs)}


class Given(nn.Module):
    """Per-row losses as they are."""

    scope = "rows"

    def forward(self, estimate: Tensor) -> Tensor:
        return estimate


@adapter("agg_loss")
def agg_loss(inputs: Inputs, params: Inputs) -> Inputs:
    mask = inputs["loss_mask"]
    term = aggregated(Given(), params, mask, "loss_agg_mode")
    found = evaluate(
        term,
        target=torch.zeros(mask.numel(), dtype=torch.int64),
        estimate=inputs["loss_mat"].reshape(-1),
        mask=mask.bool().reshape(-1),
        sequence_id=sequences(mask).reshape(-1),
    )
    if not bool(mask.any()):
        reason = "nothing that counts is a connected 0; sources give NaN"
        raise Deviates(reason, {"loss": found}, {"loss": 0.0})
    return {"loss": found}


@adapter("clip_cov")
def clip_cov(inputs: Inputs, params: Inputs) -> Inputs:
    bounds = (params.get("clip_cov_lb", 1.0), params.get("clip_cov_ub", 5.0))
    settings = (*bounds, *clip_range(params))
    mask = inputs["response_mask"].bool()
    loss, every = ClipCov(params.get("clip_cov_ratio", 2e-4), *settings), ClipCov(1.0, *settings)
    # Every advantage of the cases is nonzero, so a loss of 0 is that of an action left out.
    zero, candidates = (
        (of_actions(x, inputs, "none").detach().reshape(mask.shape) == 0) & mask
        for x in (loss, every)
    )
    term = aggregated(loss, params, mask, "loss_agg_mode")
    return {
        "loss": of_actions(term, inputs),
        "n_candidates": candidates.sum(),
        "clipped_mask": zero,
        "metrics": metrics(term, inputs),
    }


@adapter("kl_cov")
def kl_cov(inputs: Inputs, params: Inputs) -> Inputs:
    mask = inputs["response_mask"]
    ratio = params.get("kl_cov_ratio", 2e-4)
    if "k_percent" in params:
        # A percentage there, capped by the number of tokens; a fraction, uncapped, here.
        ratio = min(float(params["k_percent"]), float(mask.sum())) / 100
    loss = KLCov(ratio, params.get("ppo_kl_coef", 0.1))
    record = record_of(aggregated(loss, params, mask, "loss_agg_mode"), inputs)
    size = record.diagnostics["loss/abs_log_ratio"]
    # What verl calls ppo_kl here is the size of the log-ratio.
    return {"loss": record.total, "abs_kl_mean": size, "metrics": {"actor/ppo_kl": size}}


@adapter("token_covariance")
def covariance(inputs: Inputs, params: Inputs) -> Inputs:
    mask = inputs["response_mask"].bool()
    found = token_covariance(
        inputs["advantages"].reshape(-1), inputs["log_prob"].reshape(-1), mask.reshape(-1)
    ).reshape(mask.shape)
    return {"cov": found, "cov_mean": found.sum() / mask.sum()}


@adapter("grpo_advantage")
def grpo_advantage(inputs: Inputs, params: Inputs) -> Inputs:
    names = list(inputs["index"])
    group = torch.tensor([names.index(name) for name in names])
    only(params, "epsilon", 1e-6)
    rewards, mask = inputs["token_level_rewards"], inputs["response_mask"]
    found = group_advantage(rewards.sum(1), group, bool(params.get("norm_adv_by_std", True)))
    return {"advantages": found[:, None] * mask}


@adapter("adaptive_entropy_coef")
def adaptive_entropy_coef(inputs: Inputs, params: Inputs) -> Inputs:
    names = ("target", "delta", "init", "min", "max")
    controller = Coefficient(*(params[name] for name in names))
    after = []
    for entropy in inputs["entropies"]:
        controller.update(float(entropy))
        after.append([controller.value, float(controller.entropy < controller.target)])
    return {"coef_and_enabled_after": after}


@adapter("entropy_performance_law")
def entropy_performance_law(inputs: Inputs, params: Inputs) -> Inputs:
    entropy = series(inputs, "entropy", "entropies", "H")
    reward = series(inputs, "reward", "rewards", "R")
    law = entropy_law(entropy, reward)
    names = {"a": law.a, "b": law.b, "ceiling": law.ceiling, "r2": law.r2}
    also = {"slope": -law.a, "intercept": law.b, "R2": law.r2, "r_squared": law.r2, "n": law.points}
    return names | also


def series(inputs: Inputs, *names: str) -> list[float]:
    """A column of the input, under one of its names."""
    (name,) = (name for name in names if name in inputs)
    return [float(v) for v in inputs[name]]


@adapter("cispo")
def cispo(inputs: Inputs, params: Inputs) -> Inputs:
    loss = CISPO(*clip_range(params))
    term = aggregated(loss, params, inputs["response_mask"], "loss_agg_mode")
    return {"loss": of_actions(term, inputs), "metrics": metrics(term, inputs)}


@adapter("kl_estimator")
def kl_estimator(inputs: Inputs, params: Inputs) -> Inputs:
    value = KLEstimator(params["kind"])(inputs["log_prob"], inputs["ref_log_prob"])
    return {"value": value, "backward": value.sum()}


@adapter("dpo")
def dpo(inputs: Inputs, params: Inputs) -> Inputs:
    chosen, rejected = inputs["policy_chosen"], inputs["policy_rejected"]
    pairs = torch.arange(len(chosen))
    loss = DPO(params["beta"], params["label_smoothing"])
    named = {
        "log_prob": torch.cat([chosen, rejected]),
        "ref_log_prob": torch.cat([inputs["ref_chosen"], inputs["ref_rejected"]]),
        "pair_id": torch.cat([pairs, pairs]),
        "chosen": torch.cat([torch.ones_like(pairs), torch.zeros_like(pairs)]).bool(),
    }
    each = [loss(*(x[pairs_of(i, len(pairs))] for x in named.values())) for i in pairs.tolist()]
    return {"loss": loss(**named), "per_pair": torch.stack(each)}


def pairs_of(i: int, pairs: int) -> list[int]:
    """The two rows of pair i."""
    return [i, i + pairs]


@adapter("tent")
def tent(inputs: Inputs, params: Inputs) -> Inputs:
    found = {
        name: evaluate(EntropyMinimization(), reduction, logits=inputs["logits"])
        for name, reduction in (("loss", "mean"), ("per_sample", "none"))
    }
    return found


@adapter("marginal_entropy")
def marginal_entropy(inputs: Inputs, params: Inputs) -> Inputs:
    return {"loss": evaluate(MarginalEntropy(eps=params["eps"]), logits=inputs["logits"])}


@adapter("rmt_sce")
def rmt_sce(inputs: Inputs, params: Inputs) -> Inputs:
    named = {"logits": inputs["student_logits"], "teacher_logits": inputs["teacher_logits"]}
    loss = TeacherSymmetricCE(params["alpha"])
    return {
        "loss": evaluate(loss, **named),
        "per_sample": evaluate(loss, "none", **named),
    }


@adapter("me_max")
def me_max(inputs: Inputs, params: Inputs) -> Inputs:
    loss = MarginalEntropy(params["temp"], offset=True)
    return {"loss": evaluate(loss, logits=inputs["logits"])}


@adapter("mean_entropy_max")
def mean_entropy_max(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "offset", "log K")
    loss = MarginalEntropy(params["student_temp"], offset=True)
    return {"loss": evaluate(loss, logits=inputs["student_output"])}
