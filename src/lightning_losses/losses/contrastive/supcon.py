# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Supervised contrastive loss: every row of the anchor's class is a positive of the softmax."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from lightning_losses.losses.shared.mining import Mining
from lightning_losses.losses.shared.pairs import (
    PairLoss,
    Pairs,
    masked_logsumexp,
    mean_of_active,
)


class SupCon(PairLoss):
    """``-(T / T_base) mean_pos(s / T - log sum_others exp(s / T))`` of each anchor, s the cosine.

    Khosla et al., "Supervised Contrastive Learning", arXiv 2004.11362, equation 2 (the mean over
    positives stands outside the logarithm). Conventions in which libraries differ are arguments.
    To get the numbers of

    - SupContrast, ``SupConLoss(temperature=T)``: ``temperature: T``, ``base_temperature: 0.07``,
      features ``(B, views, D)``, with or without target; its mode "one" is ``anchors: first``;
    - pytorch-metric-learning, ``SupConLoss(T)``, T 0.1 unless said: ``temperature: T``,
      ``empty: skip``; with a miner, ``mining``;
    - its ``NTXentLoss(T)`` of labels, T 0.07 unless said: ``temperature: T``,
      ``denominator: negatives``, equal where all rows have as many positives (it takes the mean
      over pairs, not over anchors).

    Features need no normalising; several ranks need no wrapper, and the value shown is that of the
    batch of all ranks (pytorch-metric-learning's wrapper shows it times the number of ranks).

    Args:
        temperature: T, positive.
        base_temperature: T_base; None leaves the factor ``T / T_base`` out, as
            pytorch-metric-learning does. SupContrast has 0.07: at another T it scales loss and
            gradient.
        denominator: ``others``: all rows but the anchor, as the paper has it; ``negatives``: the
            positive itself and the negatives, as NTXentLoss of pytorch-metric-learning.
        anchors: ``all`` views, or ``first``: only the first one (SupContrast's mode "one").
        empty: what an anchor without a positive is: ``count``, a 0 in the mean (SupContrast), or
            ``skip``, left out of it (pytorch-metric-learning).
        mining: which of an anchor's pairs are kept, in numerator and denominator: ``all``;
            ``hard``: the farthest positive and the nearest negative; ``hard_negative``: all
            positives, the nearest negative; ``semihard``: the farthest positive and the nearest
            negative beyond it; ``easy_positive``: the nearest positive and the nearest negative
            beyond it; ``{epsilon: 0.1}``: multi-similarity's; or ranges of Euclidean distance,
            between 0 and 2, ``{positives: [0.2, 2], negatives: [0, 0.8]}``.

    Shapes: features ``(B, D)`` or ``(B, views, D)``, target ``(B,)``; per-row values ``(B,)``, one
    number under ``skip``. Or instead of the target ``label_set (B, L)`` of 0 and 1, ``pair_mask
    (B, M)`` of True for positives; target -1 is not labelled; ``ref_features (R, D)`` with
    ``ref_target`` are columns instead of the batch. Logged are ``active``, the share of anchors
    with a positive, and under mining ``mined``, the share of pairs kept.

    Raises:
        ValueError: a temperature that is not positive, an unknown convention.
    """

    def __init__(
        self,
        temperature: float = 0.07,
        base_temperature: float | None = None,
        denominator: Literal["others", "negatives"] = "others",
        anchors: Literal["all", "first"] = "all",
        empty: Literal["count", "skip"] = "count",
        mining: Mining = "all",
    ) -> None:
        super().__init__(mining)
        if not temperature > 0 or not (base_temperature is None or base_temperature > 0):
            raise ValueError(
                f"temperatures must be positive, got {temperature} and {base_temperature}."
            )
        for name, value, known in (
            ("denominator", denominator, ("others", "negatives")),
            ("anchors", anchors, ("all", "first")),
            ("empty", empty, ("count", "skip")),
        ):
            if value not in known:
                raise ValueError(f"{name} must be one of {known}, got {value!r}.")
        self.temperature, self.base_temperature = temperature, base_temperature
        self.denominator, self.anchors, self.empty = denominator, anchors, empty

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Per-row values ``(B,)``, or their mean over anchors that have a positive."""
        values, positives = self.each(pairs, self._anchors)
        values = values + pairs.nothing()
        if self.base_temperature is not None:
            values = values * (self.temperature / self.base_temperature)
        active = (positives > 0).to(values.dtype)
        if self.anchors == "first":
            values, active = values[:: pairs.views], active[:: pairs.views]
        rows = active if self.anchors == "first" else pairs.per_sample(active)
        self.diagnostics["active"] = rows
        if self.empty == "skip":
            return mean_of_active(values, active)
        return values if self.anchors == "first" else pairs.per_sample(values)

    def _anchors(self, s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, Tensor]:
        z = s / self.temperature
        count = pos.sum(1)
        share = count.clamp(min=1)
        if self.denominator == "others":
            loss = masked_logsumexp(z, pos | neg) - torch.where(pos, z, 0).sum(1) / share
        else:
            others = masked_logsumexp(z, neg)[:, None]
            loss = torch.where(pos, torch.logaddexp(z, others) - z, 0).sum(1) / share
        return torch.where(count > 0, loss, 0), count
