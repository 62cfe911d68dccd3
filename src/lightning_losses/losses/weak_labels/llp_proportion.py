# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Learning from label proportions: of each bag, the share of every class is known."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient
from lightning_losses.losses.shared.bags import log_mean_of_bags
from lightning_losses.losses.shared.rows_math import log_softmax


class LabelProportion(nn.Module):
    """``-sum_c share_c log(mean of p_c over the bag)``, mean over bags.

    Ardehaly and Culotta, "Co-training for Demographic Classification Using Deep Learning from
    Label Proportions", arXiv 1709.04108. A bag may be spread over ranks, not over steps.

    Shapes: logits ``(N, C)``, bag_id ``(N,)``, bag_proportion ``(N, C)``, the shares of the row's
    bag; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logits", "bag_proportion"),))

    def forward(
        self, logits: Tensor, bag_id: Tensor, bag_proportion: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        log_p, weight = log_mean_of_bags(log_softmax(logits), bag_id, valid)
        share = gather_with_gradient(bag_proportion.to(logits.dtype))
        # 0 times what cannot be is 0.
        return -(weight * (share * log_p).sum(1)).sum()
