# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Small inputs for any loss, made from the names of the tensors that it requires."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from lightning_losses import Objective, build_objective
from lightning_losses.config.build import compose_losses
from lightning_losses.config.catalogue import keys
from lightning_losses.softmax import STATISTICS

LOSSES = keys("loss")
CLASSES = 5
DIM = 4

#: Penalties read parameters, so rows that do not count are no matter to them.
PARAMETERS_ONLY = [k for k in LOSSES if k in ("elastic", "presto", "weight_distribution")]
#: Its rows are those of a buffer, so the batch's mask says nothing of them.
OWN_ROWS = ["dark_experience"]
ROWWISE = [k for k in LOSSES if k not in PARAMETERS_ONLY + OWN_ROWS]
#: Their target is a real value, so they share no batch with losses on classes.
REAL_TARGET = ["hl_gauss", "pinball", "two_hot", "weighted_interval_score"]
#: The same whatever rows a batch has, and on every rank.
WHOLE = ["head_weight", "kernel_points", "ref_features", "teacher_head_weight"]
#: They compare two views of each sample.
TWO_VIEWS = ["barlow_twins", "clip", "hyperbolic_contrastive", "nt_xent", "pairwise_confusion"]
TWO_VIEWS += ["siglip", "weighted_info_nce"]
#: Their target says of every column whether it is relevant.
MULTI_HOT = ["decoupled_softmax", "multilabel_softmax", "soft_topk"]
#: Rows with target -1 are not labelled, which matters to them.
PARTLY_LABELLED = ["labelled_ce"]
#: They rank one score a row.
ONE_SCORE = ["mann_whitney"]
#: Classes that have an order, or a column in more tensors than logits, may not change places.
ORDINAL = ["coral", "corn", "ordinal_ce", "ordinal_nll"]
ORDERED = [*REAL_TARGET, *ORDINAL, "c51", "llp_proportion", "tri_bce", "concept_bottleneck"]
ORDERED += ["inter_variable_contrastive", *MULTI_HOT, *ONE_SCORE, "multi_aspect_kd"]
ORDERED += ["local_entropy", "soft_entropy"]  # known classes come first
ORDERED += ["adaptive_margin_softmax", "group_progressive", "margin_calibration", "proto_triplet"]
ORDERED += ["prototypical_contrastive", "unpg"]
#: Their logits mean something by themselves, not only their differences within a row.
ABSOLUTE = [*ORDINAL, "logsumexp_penalty", "stablemax", "tri_bce", "aggregate_responses"]
ABSOLUTE += ["aldr_kl", "bce", "binary_focal", "edl", "ensloss", "l2_svm", "ldr_kl"]
ABSOLUTE += ["spherical_softmax", "taylor_softmax", "weat"]
ABSOLUTE += ["inter_variable_contrastive", "ips_bce", "bce_all_labels", "multi_aspect_kd"]
#: Of their value, a part that depends on the logits sends no gradient.
PARTLY_DETACHED = ["aldr_kl", "circle", "emo", "ensloss", "hapo", "local_entropy", "personal_loss"]
PARTLY_DETACHED += ["adaptive_margin_softmax", "group_progressive", "self_distill", "split_point"]


def build(key: str, classes: int = CLASSES, **options: Any) -> Objective:
    """The objective of one key with weight 1, its settings made small."""
    node = composed(key).copy()
    node.weight = 1.0
    if "num_bins" in (node.get("target_transform") or {}):
        node.target_transform.num_bins = classes
    if "class_counts" in node:
        node.class_counts = [10.0] * classes  # equal, so that classes may change places
    if key == "soft_topk":
        node.k = 2  # fewer than there are classes
    if "steepness" in node:
        node.steepness = 5.0  # at 73 a small batch may have no gradient worth comparing
    if "num_samples" in node:
        node.num_samples = 256
    if "num_groups" in (node.get("row_weighting") or {}):
        node.row_weighting.num_groups = 3
    if "num_old" in node:
        node.num_old = 2
    if "num_labelled" in node:
        node.num_labelled = min(3, classes)
        # Not so cold that every prediction is sure.
        node.temperature, node.confidence_temperature, node.threshold = 1.0, 1.0, 0.4
    if "num_classes" in node:
        # Of ordered classes there is one more than there are logits.
        node.num_classes = classes + (key in ORDINAL)
    if "in_features" in node:
        node.in_features = DIM
    with torch.random.fork_rng():
        torch.manual_seed(0)  # losses that own centres begin at random
        objective = build_objective({key: node}, **options).double()
    if key == "elastic":  # nothing is held before a first task
        earlier = network(seed=99)
        shapes = {name: torch.ones_like(p) for name, p in earlier.named_parameters()}
        objective.terms[key].loss.remember(earlier, shapes)
    return objective


def composed(key: str) -> Any:
    """The node of a key."""
    return _composed()[key]


@cache
def _composed() -> Any:
    """All nodes at once; composing takes tens of milliseconds, and some tests build hundreds."""
    return compose_losses(LOSSES)


def required(objective: Objective) -> set[str]:
    """Named tensors that the step must pass; statistics stand for logits and target."""
    names = set().union(*(term.required for _, term in objective.named_terms()))
    if names & set(STATISTICS):
        names |= {"logits"}
    contracts = [getattr(term.loss, "contract", None) for _, term in objective.named_terms()]
    if "log_prob" in names or any(c and "label" in c.target for c in contracts):
        names |= {"target"}
    # Logits or hidden states, whichever there are.
    optional = {a.tensor for _, term in objective.named_terms() for a in term.arguments}
    if {"logits", "hidden"} <= optional:
        names |= {"logits"}
    return names - set(STATISTICS) - {"valid"}


def inputs(
    objective: Objective,
    rows: int = 6,
    classes: int = CLASSES,
    seed: int = 0,
    dtype: torch.dtype = torch.float64,
) -> dict[str, Any]:
    """Named tensors for an objective; those that a network would make require a gradient."""
    g = torch.Generator().manual_seed(seed)

    def normal(*shape: int, grad: bool = True) -> Tensor:
        x = 1.5 * torch.randn(*shape, generator=g, dtype=torch.float64)
        return x.to(dtype).requires_grad_(grad)

    names = required(objective)
    key = next(iter(objective.terms))
    real = "quantiles" in names or any(
        term.target_transform is not None for _, term in objective.named_terms()
    )
    # Scores of two branches, or one score a row, go with yes or no.
    most = 2 if "logits_deep" in names or key in ONE_SCORE else 3

    def labels() -> Tensor:
        if key in MULTI_HOT:
            return (torch.rand(rows, classes, generator=g) < 0.4).to(dtype)
        if real:
            return torch.rand(rows, generator=g, dtype=torch.float64) * 1.6 - 0.8
        # Few classes among many rows, so that every class has pairs.
        found = torch.randint(classes, (rows,), generator=g) % most % max(classes, 1)
        return found - int(key in PARTLY_LABELLED)

    made = {
        "logits": lambda: normal(rows, 1 if key in ONE_SCORE else classes),
        "logits_adv": lambda: normal(rows, classes),
        "aux_logits": lambda: normal(rows, classes),
        "aspect_logits": lambda: normal(rows, 3),
        "aspect_target": lambda: torch.rand(rows, 3, generator=g, dtype=torch.float64).to(dtype),
        "other_logits": lambda: normal(rows, classes),
        "subnet_logits": lambda: normal(rows, 2, classes),
        "clusters": lambda: torch.randint(3, (rows, 2), generator=g),
        "ref_features": lambda: normal(3, DIM, grad=False),
        "kernel_points": lambda: normal(3, DIM, grad=False),
        "replay_logits": lambda: normal(rows, classes),
        "stored_logits": lambda: normal(rows, classes, grad=False),
        "replay_target": lambda: torch.randint(classes, (rows,), generator=g),
        "teacher_logits": lambda: normal(rows, classes, grad=False),
        # Few classes among many rows, so that every class has pairs.
        "target": labels,
        "features": lambda: normal(rows, 2, DIM) if key in TWO_VIEWS else normal(rows, DIM),
        "attention": lambda: normal(rows, 2, 3, 3, grad=False).softmax(-1).requires_grad_(),
        "list_id": lambda: torch.arange(rows) // 3,
        "sequence_id": lambda: torch.arange(rows) // 3,
        "group_id": lambda: torch.arange(rows) % 3,
        "prompt_id": lambda: torch.arange(rows) // 6,
        "reward_mask": lambda: normal(rows).abs().detach().requires_grad_(),
        "forget": lambda: torch.arange(rows) % 3 == 1,
        "labelled": lambda: torch.arange(rows) % 3 == 1,
        "class_prior": lambda: normal(rows, classes, grad=False).softmax(1),
        "hidden": lambda: normal(rows, DIM),
        "head_weight": lambda: normal(classes, DIM),
        "advantage": lambda: normal(rows, grad=False),
        "ref_log_prob": lambda: -normal(rows, grad=False).abs(),
        "pair_id": lambda: torch.arange(rows) // 3,
        "chosen": lambda: torch.arange(rows) % 3 == 0,
        "old_log_prob": lambda: -normal(rows, grad=False).abs(),
        "sample_index": lambda: torch.randperm(rows, generator=g),
        "class_similarity": lambda: normal(rows, classes, grad=False),
        "module": lambda: network(seed, dtype),
        "quantiles": lambda: normal(rows, 5),
        "estimate": lambda: normal(rows, 3),
        "reference": lambda: normal(rows, 3, grad=False),
        "variance": lambda: normal(rows, 3, grad=False).exp().requires_grad_(),
        "residual": lambda: normal(rows, 3),
        "above": lambda: normal(rows, 3),
        "below": lambda: normal(rows, 3),
        "next_logits": lambda: normal(rows, classes, grad=False),
        "reward": lambda: normal(rows, grad=False),
        "discount": lambda: torch.rand(rows, generator=g, dtype=torch.float64).to(dtype),
        "logit_map": lambda: normal(rows, classes, 5, 4),
        "label_map": lambda: torch.randint(classes, (rows, 5, 4), generator=g) % 3,
        "skeleton_map": lambda: torch.randint(classes, (rows, 5, 4), generator=g) % 3,
        "region_map": lambda: normal(rows, classes, 5, 4, grad=False),
        "sensitive": lambda: normal(rows, 2, grad=False),
        "bag_id": lambda: torch.arange(rows) // 2 % 3,
        "bag_target": lambda: (torch.arange(rows) // 2 % 3).to(dtype),
        "bag_proportion": lambda: normal(rows, classes, grad=False).softmax(1),
        "profit": lambda: normal(rows, grad=False),
        "logits_deep": lambda: normal(rows),
        "logits_shallow": lambda: normal(rows),
        "score": lambda: normal(rows),
        "log_q": lambda: normal(rows, grad=False),
        "noise_score": lambda: normal(rows, 3),
        "noise_log_q": lambda: normal(rows, 3, grad=False),
        "log_marginal": lambda: normal(rows),
        "next_log_marginal": lambda: normal(rows),
        "x0": lambda: normal(rows, 3, grad=False),
        "x1": lambda: normal(rows, 3, grad=False),
        "concept_logits": lambda: normal(rows, classes),
        "logits_positive": lambda: normal(rows, classes),
        "logits_negative": lambda: normal(rows, classes),
        "inverse_propensity": lambda: normal(rows, grad=False).exp(),
        "old_class_map": lambda: normal(rows, 5, 4, grad=False).sigmoid(),
        "solutions": lambda: torch.randint(-1, 2, (rows, 3, classes), generator=g),
        "solution_value": lambda: normal(rows, 3, grad=False),
    }
    unknown = names - made.keys()
    assert not unknown, f"tests/factory.py makes no {sorted(unknown)} yet: add a line to it"
    return {name: made[name]() for name in sorted(names)}


def network(seed: int = 0, dtype: torch.dtype = torch.float64) -> nn.Module:
    """Two linear layers, for penalties (the first weight is left out by some)."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Linear(DIM, 6), nn.Linear(6, CLASSES)).to(dtype)


def leaves(named: dict[str, Any]) -> dict[str, Tensor]:
    """The tensors and parameters of `inputs` that require a gradient, by name."""
    found = {n: t for n, t in named.items() if isinstance(t, Tensor) and t.requires_grad}
    for name, value in named.items():
        if isinstance(value, nn.Module):
            found |= {f"{name}.{n}": p for n, p in value.named_parameters()}
    return found
