# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses and measures of language models, and how their tokens are drawn."""

from __future__ import annotations

import math
from decimal import Decimal, localcontext
from typing import Any

import torch
from torch import Tensor

from adapters.policy import sequences
from adapters.table import Deviates, NotBuilt, adapter, evaluate, named, only
from lightning_losses import Objective
from lightning_losses.losses import FLAT, DirectCoverage, EarthMover
from lightning_losses.losses.language.dco import coverage_factor, coverage_loss
from lightning_losses.metrics.language.best_of_n import best_of_n_kl_bound
from lightning_losses.metrics.language.membership import dc_pdd, min_k, standardised
from lightning_losses.sampling import Mirostat, truncate
from lightning_losses.softmax import softmax_stats

Inputs = dict[str, Any]


@adapter("emo")
def emo(inputs: Inputs, params: Inputs) -> Inputs:
    hidden, labels = inputs["hidden"], inputs["labels"]
    objective = Objective({"x": EarthMover()}, ignore_index=params["ignore_index"])
    made = (hidden @ inputs["lm_head_weight"].T)[:, :-1].flatten(0, 1)
    torch.testing.assert_close(made, inputs["shift_logits_flat"])
    assert torch.equal(labels[:, 1:].flatten(), inputs["shift_labels_flat"])
    value = objective(
        hidden=hidden, head_weight=inputs["lm_head_weight"], target=labels, shift=1
    ).total
    # Of the logits: hidden states that are the logits, a head that passes them on, and the costs.
    logits = inputs["shift_logits_flat"]
    of_logits = objective(
        hidden=logits,
        head_weight=torch.eye(logits.shape[1], dtype=logits.dtype),
        cost_embedding=inputs["lm_head_weight"].detach(),
        target=inputs["shift_labels_flat"],
    ).total
    return {"loss": value, "backward": value + of_logits}


@adapter("dco")
def dco(inputs: Inputs, params: Inputs) -> Inputs:
    logits, labels = inputs["logits"], inputs["labels"]
    only(params, "shift", True)
    given = {
        "logits": logits,
        "target": labels,
        "sequence_id": sequences(labels),
        "shift": 1,
    }

    def total(loss: DirectCoverage) -> Tensor:
        objective = Objective({"x": loss}, ignore_index=params["ignore_index"])
        value: Tensor = objective(**given).total
        return value

    samples = params["N"]
    direct = total(DirectCoverage(samples))
    (grad,) = torch.autograd.grad(direct, logits, retain_graph=True)
    shifted = labels[:, 1:]
    counts = shifted != params["ignore_index"]
    stats = softmax_stats(logits[:, :-1], target=shifted, ignore_index=params["ignore_index"])
    assert stats.log_prob is not None
    log_p, tokens = stats.log_prob.reshape(shifted.shape).sum(1), counts.sum(1)
    factor = coverage_factor(log_p, samples)
    # Below its rounding error the source's logarithm of nearly 1 is 0.
    rounds = direct < 1e-16
    found = {
        "surrogate_loss": (factor * -log_p).mean(),
        "seq_prob": log_p.exp(),
        "factor": factor,
        "direct_loss": torch.where(rounds, 0, direct),
        "direct_grad_logits": torch.where(rounds, 0, grad),
        "backward": direct,
        "per_token_mean_variant_per_example": factor * -log_p / tokens,
    }
    exact = torch.tensor(
        [exact_factor(float(p), samples) for p in log_p.exp()], dtype=torch.float64
    )
    raise Deviates(
        SERIES,
        found,
        {
            "factor": exact,
            "surrogate_loss": (exact * -log_p).mean(),
            "per_token_mean_variant_per_example": exact * -log_p / tokens,
        },
    )


#: What is different about the factor where samples * p is small.
SERIES = "the factor is exact; the source cuts a series off, 1e-5 of it at samples * p = 0.1"


def exact_factor(p: float, samples: int) -> float:
    """The factor in 60 digits."""
    with localcontext() as context:
        context.prec = 60
        if not p:
            return 1.0
        x, n = Decimal(p), samples
        return float(n * x * (1 - x) ** (n - 1) / (1 - (1 - x) ** n)) if x < 1 else 0.0


@adapter("dco_factor")
def dco_factor(inputs: Inputs, params: Inputs) -> Inputs:
    found = {"factor": coverage_factor(inputs["p"].log(), params["N"])}
    ours = torch.tensor(
        [exact_factor(p, params["N"]) for p in inputs["p"].tolist()], dtype=torch.float64
    )
    raise Deviates(SERIES, found, {"factor": ours})


DIVERGENCES = {
    "Total-Variation": "total_variation",
    "KL": "kl",
    "Reverse-KL": "reverse_kl",
    "Pearson": "pearson",
    "Neyman": "neyman",
    "Jeffrey": "jeffrey",
    "Squared-Hellinger": "squared_hellinger",
    "Jenson-Shannon": "jensen_shannon",
}


@adapter("flat")
def flat(inputs: Inputs, params: Inputs) -> Inputs:
    only(params, "shifted", True)
    logits, labels, forget, p = [], [], [], {}
    for side in ("forget", "good"):
        z, y = inputs[f"{side}_logits"].flatten(0, 1), inputs[f"{side}_labels"].flatten()
        # The source counts positions without label as probability 0; a logit can say so too.
        none = y == params["ignore_index"]
        low = torch.tensor([-1e30, 0, 0, 0], dtype=z.dtype)
        z, y = torch.where(none[:, None], low, z), torch.where(none, 0, y)
        p[side] = softmax_stats(z, target=y).log_prob.exp().mean()
        logits.append(z)
        labels.append(y)
        forget.append(torch.full_like(y, side == "forget", dtype=torch.bool))
    loss = FLAT(named(params, "divergence", DIVERGENCES))
    value = evaluate(
        loss, logits=torch.cat(logits), target=torch.cat(labels), forget=torch.cat(forget)
    )
    return {"loss": value, "p_forget": p["forget"], "p_good": p["good"]}


@adapter("dc_pdd")
def pretraining_data(inputs: Inputs, params: Inputs) -> Inputs:
    log_prob, token = inputs["token_log_probs"][None], inputs["input_ids"][None]
    scaled = standardised(log_prob, inputs["mu"], inputs["sigma"])
    return {
        "dc_pdd": dc_pdd(log_prob, token, inputs["ref_token_counts"], cap=params["a"])[0],
        "min_k": min_k(log_prob, fraction=params["k"])[0],
        "min_k_pp": min_k(scaled, fraction=params["k"])[0],
        "ppl": coverage_loss(log_prob.mean(), 1).exp(),
    }


@adapter("best_of_n_kl_bound")
def best_of_n(inputs: Inputs, params: Inputs) -> Inputs:
    return {"kl_upper": [best_of_n_kl_bound(int(n)) for n in inputs["n"]]}


@adapter("sampling")
def sampling(inputs: Inputs, params: Inputs) -> Inputs:
    z = inputs["logits"]
    if not all(isinstance(step, dict) for step in params["steps"]):
        raise NotBuilt("a step without name")
    for step in params["steps"]:
        z = truncate(z, **step)
    kept = z > -torch.inf
    return {
        "kept": kept,
        "probabilities": z.softmax(-1),
        "number_kept": kept.sum(-1),
    }


def steps(sampler: Mirostat, inputs: Inputs) -> Inputs:
    """Each step's token is the one of a given rank, or the last that is kept."""
    found: dict[str, list[Any]] = {n: [] for n in ("s", "k", "token", "surprise", "mu")}
    for logits, rank in zip(inputs["logits_by_step"], inputs["rank_by_step"], strict=True):
        kept = sampler.truncate(logits[None])
        number = int((kept > -torch.inf).sum())
        token = kept.argsort(descending=True, stable=True)[:, min(int(rank), number - 1)]
        surprise = sampler.observe(logits[None], kept, token)
        for name, value in (
            ("s", sampler.exponent),
            ("k", number),
            ("token", token),
            ("surprise", surprise),
            ("mu", sampler.mu),
        ):
            found[name].append(float(value))
    return {f"{name}_by_step": values for name, values in found.items()}


@adapter("mirostat_v1")
def mirostat_v1(inputs: Inputs, params: Inputs) -> Inputs:
    llama = params.get("variant") == "llama.cpp"
    sampler = Mirostat(
        1,
        params["tau"],
        params["learning_rate"],
        version=1,
        surprise="kept" if llama else "full",
        rounding="floor" if llama else "paper",
        ratios=params["m"] - llama,
        vocabulary=params["n"],
    )
    return steps(sampler, inputs)


@adapter("mirostat_v2")
def mirostat_v2(inputs: Inputs, params: Inputs) -> Inputs:
    of = "kept" if params["renormalised_surprise"] else "full"
    return steps(Mirostat(1, params["tau"], params["eta"], surprise=of), inputs)  # type: ignore[arg-type]


@adapter("mirostat")
def mirostat(inputs: Inputs, params: Inputs) -> Inputs:
    """The law alone: among tokens of which one has the surprise."""
    tau = params["tau"]
    only(params, "mu0", 2 * tau)
    sampler = Mirostat(1, tau, params["eta"], surprise="full")
    after = []
    for bits in inputs["observed_surprise_bits"].tolist():
        p = 2.0**-bits
        rest = torch.full((4095,), (1 - p) / 4095, dtype=torch.float64)
        logits = torch.cat([torch.tensor([p], dtype=torch.float64), rest]).log()[None]
        sampler.observe(logits, logits, torch.tensor([0]))
        after.append(float(sampler.mu))
    assert math.isfinite(after[-1])
    return {"mu_after": after}
