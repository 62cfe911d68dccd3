# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""SparsePO: DPO in which each token counts as a mask says, for reward and for divergence."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.rows_math import log_softmax
from lightning_losses.losses.shared.sequences import sequences


class SparsePO(nn.Module):
    """``-log sigmoid(beta (u - d))`` plus an L1 price of the masks, mean over pairs of responses.

    Christopoulou et al., "SparsePO: Controlling Preference Alignment of LLMs via Sparse Token
    Masks", arXiv 2410.05102. Over the tokens of the preferred response, minus those of the other:
    ``u = sum m (log p - log p_ref)`` and ``d = -sum k KL(reference || policy)``, with masks m and k
    that are at least 0. Masks 1 and 0 give DPO; without kl_mask m is both. A learned mask gets
    gradient. A pair of which one side has no row that counts is left out. As d is a difference, the
    loss gains where the policy leaves the reference on the preferred response: it bounds no drift.

    Args:
        beta: how strongly u - d is judged, positive; 0.1, in the recipes 0.4 to 0.8.
        l1: price of the sum of m over the tokens of a pair.
        kl_l1: price of the sum of k.

    Shapes: logits and teacher_logits (of the reference policy, without gradient) ``(N, C)``, target
    ``(N,)`` int64, pair_id ``(N,)`` int64, chosen ``(N,)`` bool, reward_mask and optionally kl_mask
    ``(N,)`` float. Both responses of a pair on one rank. One number for the pairs of all ranks.

    Raises:
        ValueError: beta that is not positive, a negative price.
    """

    scope = "batch"
    contract = Contract(same_columns=(("logits", "teacher_logits"),))

    def __init__(self, beta: float = 0.1, l1: float = 0.0, kl_l1: float = 0.0) -> None:
        super().__init__()
        if not (beta > 0 and l1 >= 0 and kl_l1 >= 0):
            raise ValueError(
                f"beta must be positive, l1 and kl_l1 at least 0, got {beta}, {l1} and {kl_l1}."
            )
        self.beta, self.l1, self.kl_l1 = beta, l1, kl_l1

    def forward(
        self,
        logits: Tensor,
        teacher_logits: Tensor,
        target: Tensor,
        pair_id: Tensor,
        chosen: Tensor,
        reward_mask: Tensor,
        kl_mask: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        valid = torch.ones_like(pair_id, dtype=torch.bool) if valid is None else valid
        chosen, masks = chosen.bool(), [reward_mask, reward_mask if kl_mask is None else kl_mask]
        m, k = (torch.where(valid, mask, 0) for mask in masks)
        log_p, log_ref = log_softmax(logits), log_softmax(teacher_logits.detach())
        gain = (log_p - log_ref).gather(1, target[:, None])[:, 0]
        minus_kl = (log_ref.exp() * (log_p - log_ref)).sum(1)
        part = torch.where(valid, m * gain - k * minus_kl, 0)
        found = sequences(pair_id, valid)
        z = self.beta * found.total(torch.where(chosen, part, -part))
        price = found.total(self.l1 * m.abs() + self.kl_l1 * k.abs())
        sides = [found.total((valid & side).long()) > 0 for side in (chosen, ~chosen)]
        pair = sides[0] & sides[1]
        loss = torch.where(pair, -F.logsigmoid(torch.where(pair, z, 0)) + price, 0)
        count = all_sum(pair.sum().to(loss.dtype))
        return reduce_with_gradient(loss.sum()) / count.clamp(min=1)
