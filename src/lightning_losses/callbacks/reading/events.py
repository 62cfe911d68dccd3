# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A head of sigmoids: each column of the logits is the log-odds of one event, yes or no."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses.record import LossRecord

LOWEST = -1e30  # stands for -inf, as in the losses: 0 times it is 0


class Events(NamedTuple):
    """Scores of a step, without graph; (N, 1) stands for (N,) too."""

    z: Tensor
    """``(N, L)`` log-odds, float32 at least."""
    target: Tensor | None
    """``(N, L)`` from 0 to 1 whether they happened, in the dtype of ``z``, 0 where it is not
    known; None where the step does not say."""
    known: Tensor
    """``(N, L)`` bool: of a row that counts, with a target from 0 to 1 if there are any."""


def events(record: LossRecord) -> Events | None:
    """The events of a record that captured ``logits`` and ``target``; None if it has none."""
    logits = record.captured.get("logits")
    if record.head != "sigmoid" or not isinstance(logits, Tensor) or logits.ndim > 2:
        return None
    return read_events(logits, record.captured.get("target"), record.stats.valid)


def read_events(logits: Tensor, target: Tensor | None, valid: Tensor | None) -> Events:
    """Scores ``(N,)`` or ``(N, L)`` and what is known of them.

    Args:
        logits: of a sigmoid head.
        target: shaped as the logits, 0 to 1; or class indices ``(N,)``, each column then a class
            against the rest. Any other says nothing.
        valid: ``(N,)`` bool, rows that count; None for all.
    """
    z = logits.detach().to(torch.promote_types(logits.dtype, torch.float32))
    z = z[:, None] if z.ndim == 1 else z
    known = torch.ones_like(z, dtype=torch.bool)
    if valid is not None:
        known = known & valid[:, None]
    happened = None
    if isinstance(target, Tensor):
        if target.shape == z.shape or (target.ndim == 1 and z.shape[1] == 1):
            happened = target.detach().reshape(z.shape).to(z.dtype)
        elif target.ndim == 1 and not target.is_floating_point() and len(target) == len(z):
            columns = torch.arange(z.shape[1], device=z.device)
            happened = (target[:, None] == columns).to(z.dtype)
    if happened is not None:
        known = known & (happened >= 0) & (happened <= 1)
        happened = torch.where(known, happened, 0)
    return Events(z.clamp(min=LOWEST), happened, known)  # 0 times -inf is NaN


def event_entropy(z: Tensor) -> Tensor:
    """Entropy of yes or no in nats, of log-odds; it keeps its digits where one is near 1."""
    size = z.abs()
    return F.softplus(-size) + size * torch.sigmoid(-size)


def event_nll(z: Tensor, target: Tensor) -> Tensor:
    """``-t log s(z) - (1 - t) log(1 - s(z))`` in nats."""
    return target * F.softplus(-z) + (1 - target) * F.softplus(z)


def row_entropy(record: LossRecord) -> Tensor | None:
    """Entropy of each row's prediction ``(N,)`` in nats: of its softmax, or the mean of its events.

    For a monitor that watches ``entropy`` and ``logits``. None where there are no probabilities.
    """
    found = events(record)
    return record.stats.entropy if found is None else event_entropy(found.z).mean(1)


def most_entropy(record: LossRecord) -> float | None:
    """The most nats that `row_entropy` could be; None where the number of classes is not known."""
    logits, weight = record.captured.get("logits"), record.captured.get("head_weight")
    if (held := record.captured.get("class_range")) is not None:
        return math.log(held.num_classes)
    if record.head == "sigmoid":
        return math.log(2)
    if isinstance(logits, Tensor):
        return math.log(logits.shape[-1]) if logits.ndim > 1 else None
    return math.log(len(weight)) if isinstance(weight, Tensor) and len(weight) else None


def no_probabilities(record: LossRecord, purpose: str) -> str:
    """What a monitor says that found none, for ``purpose``, such as "no entropy to log"."""
    logits = record.captured.get("logits")
    if record.head == "none" and logits is not None and logits.ndim > 1:
        return f"the loss makes no probabilities of the logits, so there is {purpose}."
    return (
        f"this step has no class logits, so there is {purpose}. Pass logits (N, C), or hidden "
        "(N, D) and head_weight (C, D), to compute_loss."
    )
