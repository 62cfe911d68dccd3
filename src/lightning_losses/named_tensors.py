# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The vocabulary of `compute_loss(**named)`: every name a loss may ask for, and what it means.

A loss asks by naming a parameter of its ``forward``; names that are not here work just as well and
reach the loss as they were passed. Being here gives a name a documented shape and error messages.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

# How the objective flattens a tensor before any loss sees it: `rows` (...) -> (N,);
# `vectors` (..., K) -> (N, K); `whole` as it is; `option` is a number for the kernels.
Layout = Literal["rows", "vectors", "whole", "option"]


class NamedTensor(NamedTuple):
    """One word of the vocabulary."""

    layout: Layout
    shape: str
    meaning: str


NAMED_TENSORS: dict[str, NamedTensor] = {
    # what the step passes
    "logits": NamedTensor("vectors", "(..., C) float", "class scores before the softmax"),
    "target": NamedTensor(
        "rows",
        "(...) int64 | (...) float | (..., C) float",
        "class index, real value, or soft target",
    ),
    "hidden": NamedTensor("vectors", "(..., D) float", "last hidden states, instead of logits"),
    "head_weight": NamedTensor("whole", "(V, D) float", "the head that turns hidden into logits"),
    "head_bias": NamedTensor("whole", "(V,) float", "the head's bias"),
    "head": NamedTensor(
        "whole", "nn.Linear", "the head itself, instead of head_weight and head_bias"
    ),
    "trunk": NamedTensor("whole", "any float", "an earlier tensor, for TermBalanceMonitor alone"),
    "features": NamedTensor("whole", "(B, D) | (B, views, D) float", "embeddings, one a sample"),
    "other_features": NamedTensor("whole", "(B, D) float", "of a second view or modality"),
    "other_logits": NamedTensor("vectors", "(..., C) float", "class scores of a second view"),
    "subnet_logits": NamedTensor("whole", "(N, S, C) float", "class scores of S lesser networks"),
    "clusters": NamedTensor("whole", "(B, K) int64", "the row's cluster in each of K clusterings"),
    "label_set": NamedTensor("whole", "(B, L) of 0 and 1", "rows that share a label are positives"),
    "pair_mask": NamedTensor("whole", "(B, M) bool", "positives among M rows of all ranks"),
    "ref_features": NamedTensor("whole", "(R, D) float", "pairs are sought here, not in the batch"),
    "ref_target": NamedTensor("whole", "(R,) int64", "target of ref_features"),
    "ref_temperature": NamedTensor("whole", "(R,) float", "temperature of each of ref_features"),
    "kernel_points": NamedTensor("whole", "(J, D) float", "where features are compared by kernels"),
    "attention": NamedTensor("whole", "list of (B, H, Q, K) float", "probabilities, one a layer"),
    "logits_adv": NamedTensor("vectors", "(..., C) float", "logits of the perturbed input"),
    "teacher_logits": NamedTensor("vectors", "(..., C) float", "logits of a teacher, no gradient"),
    "teacher_hidden": NamedTensor(
        "vectors", "(..., D) float", "a teacher's last hidden states, instead of its logits"
    ),
    "teacher_head_weight": NamedTensor("whole", "(V, D) float", "the teacher's head"),
    "teacher_head_bias": NamedTensor("whole", "(V,) float", "its bias"),
    "aux_logits": NamedTensor("vectors", "(..., C) float", "class scores of a second head"),
    "aspect_logits": NamedTensor("vectors", "(..., A) float", "scores of yes-or-no questions"),
    "aspect_target": NamedTensor("vectors", "(..., A) float", "probabilities of yes"),
    "replay_logits": NamedTensor("whole", "(M, C) float", "class scores of remembered samples now"),
    "stored_logits": NamedTensor("whole", "(M, C) float", "their class scores when remembered"),
    "replay_target": NamedTensor("whole", "(M,) int64", "their classes"),
    "input": NamedTensor("whole", "(B, ...)", "the model's input, for providers that run it again"),
    "model": NamedTensor("whole", "callable", "input -> logits, for providers that run it again"),
    "module": NamedTensor(
        "whole", "nn.Module", "whose parameters a penalty reads; LossMixin: self"
    ),
    "sample_index": NamedTensor("rows", "(N,) int64", "index of the sample in its data set"),
    "group_id": NamedTensor("rows", "(...) int64", "group, domain or language of the row, from 0"),
    # regression and reinforcement learning
    "quantiles": NamedTensor("vectors", "(..., Q) float", "predicted quantiles, a column a level"),
    "estimate": NamedTensor("whole", "(N, ...) float", "real-valued output of any shape"),
    "reference": NamedTensor("whole", "(N, ...) float", "what estimate should be"),
    "variance": NamedTensor("whole", "(N, ...) float", "predicted variance of estimate"),
    "residual": NamedTensor("whole", "(N, ...) float", "predicted mean of |reference - estimate|"),
    "above": NamedTensor("whole", "(N, ...) float", "predicted mean of reference - estimate > 0"),
    "below": NamedTensor("whole", "(N, ...) float", "predicted mean of estimate - reference > 0"),
    "next_logits": NamedTensor("vectors", "(..., C) float", "of the best next action, no gradient"),
    "reward": NamedTensor("rows", "(...) float", "reward of the step"),
    "discount": NamedTensor("rows", "(...) float", "discount factor, 0 where an episode ended"),
    "advantage": NamedTensor("rows", "(...) float", "advantage of the action in target"),
    "old_log_prob": NamedTensor("rows", "(...) float", "its log p when it was sampled, nats"),
    "ref_log_prob": NamedTensor("rows", "(...) float", "its log p under a reference policy, nats"),
    "pair_id": NamedTensor("rows", "(...) int64", "rows of both responses of one pair share it"),
    "chosen": NamedTensor("rows", "(...) bool", "rows of the response that was preferred"),
    "sequence_id": NamedTensor("rows", "(...) int64", "rows of one response share it"),
    "prompt_id": NamedTensor("rows", "(...) int64", "rows of all responses to a prompt share it"),
    "reward_mask": NamedTensor("rows", "(...) float", "how much a token counts for the preference"),
    "kl_mask": NamedTensor("rows", "(...) float", "how much its divergence counts"),
    "forget": NamedTensor("rows", "(...) bool", "rows to unlearn; the others are to be said"),
    "cost_embedding": NamedTensor("whole", "(V, E) float", "whose angles are distances of words"),
    "labelled": NamedTensor("rows", "(...) bool", "rows with a label; others are unlabelled"),
    "class_prior": NamedTensor("whole", "(B, C) float", "expected shares of classes of an image"),
    # maps of pixels, classes second as convolutions have them; beside the rows, not instead
    "logit_map": NamedTensor("whole", "(B, C, H, W) float", "class scores, or (B, 1, H, W) binary"),
    "label_map": NamedTensor("whole", "(B, H, W) int64", "class of each pixel"),
    "skeleton_map": NamedTensor("whole", "(B, H, W) int64", "label_map on its skeleton, else 0"),
    "region_map": NamedTensor("whole", "(B, C, H, W) float", "price of each class at each pixel"),
    "old_class_map": NamedTensor(
        "whole", "(B, H, W) float", "chance of a class of an earlier task under a background label"
    ),
    # weak, aggregate and sensitive labels
    "class_similarity": NamedTensor("vectors", "(..., C) float", "similarity to each class"),
    "sensitive": NamedTensor("vectors", "(..., A) float", "sensitive attributes, standardised"),
    "bag_id": NamedTensor("rows", "(...) int64", "rows of one bag share it"),
    "bag_target": NamedTensor("rows", "(...) float", "mean response of the row's bag"),
    "bag_proportion": NamedTensor("vectors", "(..., C) float", "class shares of the row's bag"),
    "list_id": NamedTensor("rows", "(...) int64", "rows of one ranked list share it"),
    "profit": NamedTensor("rows", "(...) float", "profit or loss that ranks the rows of a list"),
    "logits_deep": NamedTensor("vectors", "(...) float", "binary scores of one of two branches"),
    "logits_shallow": NamedTensor("vectors", "(...) float", "binary scores of the other branch"),
    "logits_positive": NamedTensor("vectors", "(..., K) float", "scores of a user's positives"),
    "logits_negative": NamedTensor("vectors", "(..., K) float", "of the negative of each of them"),
    "inverse_propensity": NamedTensor("rows", "(...) float", "1 / chance that a row is observed"),
    # integer programs
    "solutions": NamedTensor("whole", "(B, Q, N) int", "known solutions: 1, 0, or -1 for none"),
    "solution_value": NamedTensor("vectors", "(..., Q) float", "their objective values"),
    # densities, flows and concepts
    "score": NamedTensor("rows", "(...) float", "log-density of the row, not normalised, nats"),
    "log_q": NamedTensor("rows", "(...) float", "log-density of the noise at the row, nats"),
    "noise_score": NamedTensor("vectors", "(..., M) float", "score of M noise samples a row"),
    "noise_log_q": NamedTensor("vectors", "(..., M) float", "log-density of the noise at them"),
    "log_marginal": NamedTensor("rows", "(...) float", "log p of what is before the target, nats"),
    "next_log_marginal": NamedTensor("rows", "(...) float", "log p with the target too, nats"),
    "x0": NamedTensor("whole", "(N, ...) float", "where the path of a flow begins"),
    "x1": NamedTensor("whole", "(N, ...) float", "where the path of a flow ends"),
    "concept_logits": NamedTensor("vectors", "(..., K) float", "scores of concepts"),
    # which rows count, and how much
    "mask": NamedTensor("rows", "(...) bool", "False rows do not count"),
    "sample_weight": NamedTensor(
        "rows", "(...) float", "weight of a row in sums and means of rows"
    ),
    # how logits are made from hidden states
    "temperature": NamedTensor("rows", "(...) float", "divides logits, last; or one number"),
    "softcap": NamedTensor("option", "float", "tanh soft-cap of the logits"),
    "logit_scale": NamedTensor("option", "float", "multiplies the logits before the soft-cap"),
    "teacher_softcap": NamedTensor("option", "float", "tanh soft-cap of teacher_hidden's logits"),
    "class_range": NamedTensor("option", "ClassRange", "classes of this rank's slice of the head"),
    "max_valid": NamedTensor("option", "int", "no more rows count, so others cost a GPU nothing"),
    "shift": NamedTensor("option", "int", "row t is scored against target[..., t + shift]"),
    # softmax statistics, provided from logits or from hidden and head_weight
    "log_prob": NamedTensor("rows", "(N,) float", "log p of the target, nats"),
    "logsumexp": NamedTensor("rows", "(N,) float", "log of the softmax denominator"),
    "entropy": NamedTensor("rows", "(N,) float", "entropy of the softmax, nats"),
    "mean_logit": NamedTensor("rows", "(N,) float", "mean of the logits over classes"),
    "mean_log_prob": NamedTensor("rows", "(N,) float", "mean of log p over classes, nats"),
    "weighted_log_prob": NamedTensor("rows", "(N,) float", "the same, each class times its weight"),
    "collision": NamedTensor("rows", "(N,) float", "sum of squared probabilities"),
    "confidence": NamedTensor("rows", "(N,) float", "largest probability"),
    "prediction": NamedTensor("rows", "(N,) int64", "class of the largest logit"),
    "valid": NamedTensor("rows", "(N,) bool", "rows that count"),
}


def describe(name: str) -> str:
    """``name (shape): meaning`` for error messages; the name alone for words of the user's own."""
    word = NAMED_TENSORS.get(name)
    return name if word is None else f"{name} {word.shape}: {word.meaning}"
