# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""NT-Xent, the loss of SimCLR: find the other view of a sample among all others."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.losses.contrastive.supcon import SupCon
from lightning_losses.losses.shared.mining import Mining
from lightning_losses.losses.shared.pairs import make_pairs
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views


class NTXent(SupCon):
    """``-log(exp(s_other / T) / sum_all exp(s / T))``, the other view of a sample among all rows.

    s are cosines with the row, ``sum_all`` goes over every other row of both views.

    Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", arXiv
    2002.05709. Labels are not read: with labels it is `SupCon`. With more than two views the mean
    over the positives, as there. To get the numbers of

    - lightly, ``NTXentLoss(T)``: ``temperature: T``, and on several ranks of
      ``gather_distributed=True``, without which it compares the rows of one;
    - pytorch-metric-learning, ``SelfSupervisedLoss(NTXentLoss(T))``: ``temperature: T``, 0.07
      unless said;
    - solo-learn and the paper: ``temperature: T``, tuned from 0.1 to 0.5.

    Args:
        temperature: T, positive. 0.5 as lightly has it; the paper tunes it, 0.07 and 0.1 are
            the defaults of pytorch-metric-learning and solo-learn.
        mining: which pairs are kept; see `lightning-losses show supcon`. Of two views the positive
            is the only one: what is chosen are negatives, as ``{negatives: [0.3, 2]}`` against
            those that may be of the anchor's own kind.

    Shapes: features ``(B, views, D)``, or features and other_features ``(B, D)``; per-row values
    ``(B,)``, the mean over the views of a sample.
    """

    contract = TWO_VIEWS

    def __init__(self, temperature: float = 0.5, mining: Mining = "all") -> None:
        super().__init__(temperature, mining=mining)

    def forward(  # type: ignore[override]
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(B,)``. Raises ValueError without a second view."""
        if other_features is not None:
            features = torch.stack(two_views(features, other_features), 1)
        if features.ndim != 3:
            raise ValueError(
                f"nt_xent compares views of a sample, got features {tuple(features.shape)}: pass "
                "features (B, views, D), or the second view as other_features (B, D)."
            )
        pairs = make_pairs(features, valid=valid)
        if not len(pairs.columns.x):
            return pairs.per_sample(pairs.anchors.x.sum(1))
        return self.of_pairs(pairs)
