# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DPO: the response that people prefer gains on the other, measured against a reference policy."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.sequences import sequences


class DPO(nn.Module):
    """``-(1 - e) log sigmoid(beta u) - e log sigmoid(-beta u)``, mean over pairs of responses.

    u is ``sum (log p - log p_ref)`` over the tokens of the preferred response, minus that of the
    other. Rafailov et al., "Direct Preference Optimization", arXiv 2305.18290; e > 0 allows for
    labels that are wrong (conservative DPO). Both responses of a pair must be on one rank; a pair
    of which one side has no row that counts is left out.

    Args:
        beta: how strongly u is judged, positive; 0.1 to 0.5 are common.
        label_smoothing: e, the fraction of labels that may be wrong, in [0, 0.5).

    Shapes: the statistic log_prob of the tokens (``target``); ref_log_prob ``(N,)`` without
    gradient, pair_id ``(N,)`` int64, chosen ``(N,)`` bool; prompts masked or ignored. One number
    for the pairs of all ranks, 0 if there are none.

    Raises:
        ValueError: beta that is not positive, a smoothing out of range.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, beta: float = 0.1, label_smoothing: float = 0.0) -> None:
        super().__init__()
        if not beta > 0 or not 0 <= label_smoothing < 0.5:
            raise ValueError(
                "beta must be positive and label_smoothing in [0, 0.5), got "
                f"{beta} and {label_smoothing}."
            )
        self.beta, self.label_smoothing = beta, label_smoothing

    def forward(
        self,
        log_prob: Tensor,
        ref_log_prob: Tensor,
        pair_id: Tensor,
        chosen: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        if valid is None:
            valid = torch.ones_like(pair_id, dtype=torch.bool)
        chosen = chosen.bool()
        gain = torch.where(valid, log_prob - ref_log_prob.detach(), 0)
        found = sequences(pair_id, valid)
        u = found.total(torch.where(chosen, gain, -gain))
        sides = [found.total((valid & side).long()) > 0 for side in (chosen, ~chosen)]
        pair = sides[0] & sides[1]
        e, z = self.label_smoothing, self.beta * torch.where(pair, u, 0)
        loss = -(1 - e) * F.logsigmoid(z) - e * F.logsigmoid(-z)
        count = all_sum(pair.sum().to(loss.dtype))
        return reduce_with_gradient(torch.where(pair, loss, 0).sum()) / count.clamp(min=1)
