# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What changes a policy's advantages, clipping and weights for the sake of its entropy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from adapters.policy import aggregated, clip_range, metrics, of_actions, sequences
from adapters.table import Deviates, Term, Within, adapter, evaluate, named, only
from lightning_losses.losses import GSPO, HAPO, PACS, PPOClip
from lightning_losses.losses.policy.advantage import canon_advantage, hapo_advantage
from lightning_losses.losses.policy.hapo import adaptive_advantage, adaptive_clip
from lightning_losses.losses.shared.relative_entropy import LEAST_ENTROPY, entropy_scale
from lightning_losses.sampling import EntropyGate
from lightning_losses.weighting import HighEntropyMask, Steer

Inputs = dict[str, Any]


def given(term: Term | nn.Module, inputs: Inputs) -> Tensor:
    """The objective on log p and entropy as they are, without logits."""
    mask = inputs["response_mask"]
    named = {
        "log_prob": inputs["log_prob"],
        "entropy": inputs["entropy"],
        "old_log_prob": inputs["old_log_prob"],
        "advantage": inputs["advantages"],
        "mask": mask.bool(),
        "sequence_id": sequences(mask),
    }
    return evaluate(term, **{name: value.reshape(-1) for name, value in named.items()})


@adapter("gspo")
def gspo(inputs: Inputs, params: Inputs) -> Inputs:
    term = aggregated(GSPO(*clip_range(params)), params, inputs["response_mask"], "loss_agg_mode")
    found = of_actions(term, inputs)
    # As for ppo_clip: sources divide by the length of a response + 1e-8.
    within = Within(found, above=2e-8, below=2e-8)
    return {"loss": within, "backward": found, "metrics": metrics(term, inputs)}


@adapter("steer")
def steer(inputs: Inputs, params: Inputs) -> Inputs:
    loss = PPOClip(*clip_range(params), params["clip_ratio_c"])
    linear = bool(params["linear"])
    weighting = Steer(
        params["token_weight_min"],
        params["token_weight_max"],
        linear=linear,
        floor=params["omega_floor"],
    )
    term = aggregated(loss, params, inputs["response_mask"], "loss_agg_mode")
    mask = inputs["response_mask"].bool().reshape(-1)
    read = (inputs[n].reshape(-1) for n in ("log_prob", "entropy", "old_log_prob", "advantages"))
    weights = weighting(torch.zeros(len(mask), dtype=torch.float64), mask, *read)
    weighed = Term(loss, row_weighting=weighting, aggregation=term.aggregation)
    return {
        "loss": given(weighed, inputs),
        "token_weights": weights.reshape(inputs["response_mask"].shape),
    }


@adapter("high_entropy_mask")
def high_entropy_mask(inputs: Inputs, params: Inputs) -> Inputs:
    entropy, mask = inputs["entropies"], inputs["mask"].bool()
    weighting = HighEntropyMask(1 - params["top_entropy_quantile"])
    kept = weighting(entropy.reshape(-1), mask.reshape(-1), entropy.reshape(-1))
    return {"mask": kept.reshape(mask.shape) > 0}


@adapter("hapo_entropy_h")
def hapo_entropy_h(inputs: Inputs, params: Inputs) -> Inputs:
    entropy, mask = inputs["entropy"], inputs["response_mask"].bool()
    only(params, "eps", LEAST_ENTROPY)
    scale = entropy_scale(entropy.reshape(-1), mask.reshape(-1), params["entropy_pivot"])
    return {"h_hat": torch.where(mask, scale.place(entropy), 0)}


@adapter("hapo_ada_clip")
def hapo_ada_clip(inputs: Inputs, params: Inputs) -> Inputs:
    bounds = params["cliprange_low"], params["cliprange_high"]
    low, high = adaptive_clip(inputs["h_hat"], *bounds, params["clip_alpha"])
    return {"low": low, "high": high}


@adapter("hapo_ada_advantage")
def hapo_ada_advantage(inputs: Inputs, params: Inputs) -> Inputs:
    names = ("advantages", "h_hat", "ratio", "cliprange_low", "cliprange_high")
    found = adaptive_advantage(*(inputs[name] for name in names), params["adv_beta"])
    return {"advantages": found}


@adapter("hapo")
def hapo(inputs: Inputs, params: Inputs) -> Inputs:
    names = ("clip_ratio_c", "entropy_pivot", "clip_alpha", "adv_beta")
    loss = HAPO(*clip_range(params), *(params[name] for name in names))
    term = aggregated(loss, params, inputs["response_mask"], "loss_agg_mode")
    return {"loss": given(term, inputs)}


@adapter("hapo_group_advantage")
def hapo_group_advantage(inputs: Inputs, params: Inputs) -> Inputs:
    mask, reward = inputs["response_mask"], inputs["token_level_rewards"].sum(1)
    only(params, "epsilon", 1e-6)
    only(params, "norm_adv_by_std", True)
    group = groups(inputs)
    found = hapo_advantage(reward, group, mask.sum(1), params["smooth_threshold"])
    ours = []
    for b in range(len(mask)):
        peers = [i for i in range(len(mask)) if group[i] == group[b]]
        tokens = torch.tensor([float(reward[i]) for i in peers for _ in range(int(mask[i].sum()))])
        std = tokens.double().std(correction=0)
        ours.append((reward[b] - tokens.double().mean()) / (std + 1e-6) * mask[b])
    raise Deviates(
        "padding has advantage 0; the source leaves (0 - mean) / std there",
        {"advantages": found[:, None] * mask},
        {"advantages": torch.stack(ours)},
    )


def groups(inputs: Inputs) -> Tensor:
    """Names of groups as numbers."""
    names = list(inputs["index"])
    return torch.tensor([names.index(name) for name in names])


@adapter("canon_advantage")
def canon(inputs: Inputs, params: Inputs) -> Inputs:
    mask = inputs["response_mask"]
    metric = (inputs["entropy"] * mask).sum(1) / mask.sum(1)
    only(params, "max_length", 1)
    settings = params["alpha"], params["beta"], params["mu"]
    reward = inputs["token_level_rewards"].sum(1)
    found = canon_advantage(reward, metric, groups(inputs), *settings)
    return {"advantages": found[:, None] * mask}


SCORES = {"1": "log_ratio", "2": "mean_log_prob"}
BASELINES = {"naive": "none", "rloo": "rloo", "grpo": "grpo"}
WEIGHTS = {"question": "balanced", "only_positive": "positive"}


@adapter("pacs")
def pacs(inputs: Inputs, params: Inputs) -> Inputs:
    log_prob, mask = inputs["log_prob"], inputs["response_mask"]
    weight = named(params, "weight_mode", WEIGHTS)
    only(params, "norm_adv_by_std_in_grpo", True)
    loss = PACS(
        params["beta"],
        named(params, "reward_method", SCORES),
        named(params, "adv_estimator", BASELINES),
        weight if params["use_weight"] else "none",
    )
    rows = sequences(mask)
    given = {
        "log_prob": log_prob,
        "old_log_prob": inputs["old_log_prob"],
        "reward": inputs["token_level_scores"],
        "sequence_id": rows,
        "prompt_id": rows // params["rollout_n"],
    }
    # No mask: the source adds up what stands in padding too.
    return {"loss": evaluate(loss, **{name: value.reshape(-1) for name, value in given.items()})}


@adapter("aepo_gate")
def aepo_gate(inputs: Inputs, params: Inputs) -> Inputs:
    gate = EntropyGate(params["target"], 1.2, 0.8, params["sample_num"])
    chosen = [gate.choose(float(entropy)) for entropy in inputs["entropies"]]
    return {
        "branch": ["high" if temperature == gate.hot else "low" for temperature, _ in chosen],
        "samples": [number for _, number in chosen],
    }
