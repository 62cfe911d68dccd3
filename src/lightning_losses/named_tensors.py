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
    "features": NamedTensor("whole", "(B, D) float", "embeddings, one a sample"),
    "logits_adv": NamedTensor("vectors", "(..., C) float", "logits of the perturbed input"),
    "teacher_logits": NamedTensor("vectors", "(..., C) float", "logits of a teacher, no gradient"),
    "input": NamedTensor("whole", "(B, ...)", "the model's input, for providers that run it again"),
    "model": NamedTensor("whole", "callable", "input -> logits, for providers that run it again"),
    "module": NamedTensor(
        "whole", "nn.Module", "whose parameters a penalty reads; LossMixin: self"
    ),
    "sample_index": NamedTensor("rows", "(N,) int64", "index of the sample in its data set"),
    # which rows count, and how much
    "mask": NamedTensor("rows", "(...) bool", "False rows do not count"),
    "sample_weight": NamedTensor("rows", "(...) float", "weight of a row in sum and mean"),
    # how logits are made from hidden states
    "temperature": NamedTensor("rows", "(...) float", "divides the logits of a row, last"),
    "softcap": NamedTensor("option", "float", "tanh soft-cap of the logits"),
    "logit_scale": NamedTensor("option", "float", "multiplies the logits before the soft-cap"),
    "shift": NamedTensor("option", "int", "row t is scored against target[..., t + shift]"),
    # softmax statistics, provided from logits or from hidden and head_weight
    "log_prob": NamedTensor("rows", "(N,) float", "log p of the target, nats"),
    "logsumexp": NamedTensor("rows", "(N,) float", "log of the softmax denominator"),
    "entropy": NamedTensor("rows", "(N,) float", "entropy of the softmax, nats"),
    "mean_logit": NamedTensor("rows", "(N,) float", "mean of the logits over classes"),
    "collision": NamedTensor("rows", "(N,) float", "sum of squared probabilities"),
    "confidence": NamedTensor("rows", "(N,) float", "largest probability"),
    "prediction": NamedTensor("rows", "(N,) int64", "class of the largest logit"),
    "valid": NamedTensor("rows", "(N,) bool", "rows that count"),
}


def describe(name: str) -> str:
    """``name (shape): meaning`` for error messages; the name alone for words of the user's own."""
    word = NAMED_TENSORS.get(name)
    return name if word is None else f"{name} {word.shape}: {word.meaning}"
