# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Does the model still use all its classes? The mean prediction of some rows of a step."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lightning_losses.callbacks.reading.gather import summed
from lightning_losses.callbacks.reading.logits import RECORD_LOGITS, record_logits
from lightning_losses.record import LossRecord

#: What a callback watches to use `prediction_sums`.
MEAN_PREDICTION = (*RECORD_LOGITS, "hidden", "head_weight", "head_bias", "class_range", "target")

#: Entries of the largest block of logits that is made of hidden states; 64 MiB.
BLOCK = 2**24

#: With fewer rows the mean prediction says nothing; without labels it takes 5 rows a class.
FEWEST, FEWEST_A_CLASS = 16, 5


class MeanPrediction(NamedTuple):
    """Of the mean prediction of all ranks."""

    entropy: Tensor
    """0-dim, nats; NaN without rows."""
    share: Tensor
    """0-dim: e^entropy over that of the labels of these rows, without labels over the number of
    classes; NaN where there are too few rows for it to mean anything."""


@torch.no_grad()
def prediction_sums(record: LossRecord, max_rows: int) -> Tensor | None:
    """``(2, C + 1)``: sums of predicted probabilities, and of labels; last the number of rows.

    Of ``max_rows`` of the rows that count, evenly spread; hidden states become logits block by
    block, in the precision of the head. Nothing waits for the device. The second row is 0 where
    there are no class indices. None where there are no classes, or no softmax.

    Where classes are split over ranks it is of all of them, and a collective of these ranks: they
    tell the mass of each row, and in the end the sums of their classes.
    """
    held, valid = record.captured, record.stats.valid
    if record.head != "softmax":
        return None
    sliced = held.get("class_range")
    held = held | held.get("slices", {})
    source = held.get("logits", held.get("hidden"))
    if source is None or source.ndim != 2:
        return None
    chosen, weight = spread(valid, len(source), min(max_rows, len(source)), source.device)
    head = None if "logits" in held else held["head_weight"]
    classes = source.shape[1] if head is None else len(head)
    every = classes if sliced is None else sliced.num_classes
    predicted = torch.zeros(classes, device=source.device)
    sums = torch.zeros(2, every + 1, device=source.device)  # of labels and rows, for now
    block = max(1, BLOCK // max(classes, 1))
    for begin in range(0, len(chosen), block):
        rows, w = chosen[begin : begin + block], weight[begin : begin + block]
        z = source[rows]
        if head is not None:
            z = (z.to(head.dtype) @ head.t()).float()
            z = z if held.get("head_bias") is None else z + held["head_bias"]
        temperature = held.get("temperature")
        cut = {"logits": z, "temperature": None if temperature is None else temperature[rows]}
        z = record_logits(replace(record, captured=held | cut))
        assert z is not None
        if sliced is None:
            p = z.softmax(1)
        else:  # NaN on one rank makes the row NaN on all
            p = (z - sliced.stacked(z.logsumexp(1)).logsumexp(0)[:, None]).exp()
        use = p.isfinite().all(1) & (w > 0)
        predicted += torch.where(use[:, None], p, 0).sum(0)
        sums[:, -1] += use.sum()
        target = held.get("target")
        if isinstance(target, Tensor) and is_class_index(target):
            sums[1, :-1].index_add_(0, target[rows], use.to(sums.dtype))
    sums[0, :-1] = predicted if sliced is None else sliced.whole(predicted[None])[0]
    return sums


def spread(
    valid: Tensor | None, rows: int, size: int, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Indices ``(size,)`` of rows that count, evenly spread, and which of them to use."""
    place = torch.arange(size, device=device)
    if valid is None:
        return place * rows // max(size, 1), torch.ones_like(place)
    order = (~valid).to(torch.int8).argsort(stable=True)  # those that count first
    count = valid.sum()
    even = torch.where(count > size, place * count // max(size, 1), place)
    return order[even], (place < count).long()


def is_class_index(target: Tensor | None) -> bool:
    """Whether a target says of each row which class it is."""
    return target is not None and target.ndim == 1 and not target.is_floating_point()


def mean_prediction(sums: Tensor, trainer: Trainer, labelled: bool) -> MeanPrediction:
    """Entropy and share of the sums of all ranks, which all come here."""
    sums = summed(trainer, sums)
    rows, classes = sums[0, -1], sums.shape[1] - 1
    predicted, labels = sums[:, :-1] / rows
    entropy = plain_entropy(predicted)
    if labelled:
        share = (entropy - plain_entropy(labels)).exp()
        least = FEWEST
    else:
        share, least = entropy.exp() / classes, max(FEWEST, FEWEST_A_CLASS * classes)
    return MeanPrediction(entropy, torch.where(rows >= least, share, torch.nan))


def plain_entropy(p: Tensor) -> Tensor:
    """-sum p log p in nats, with 0 log 0 = 0."""
    return -torch.xlogy(p, p).sum()
