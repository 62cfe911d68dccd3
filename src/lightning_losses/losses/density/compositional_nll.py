# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Maximum likelihood of an unnormalised model, with log Z from noise and a moving average."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_max, all_sum
from lightning_losses.losses.density.noise_contrastive import noise_ratio
from lightning_losses.losses.shared.moving_log_mean import MovingLogMean


class CompositionalNLL(nn.Module):
    """``log u - score``, where u follows ``Z = E_q[exp(score) / q]`` from step to step.

    Jiang et al., "Learning Unnormalized Statistical Models via Compositional Optimization", arXiv
    2306.07485. With r the batch's mean of ``exp(noise_score - noise_log_q)`` the step takes
    ``u = (1 - rate) u + rate r`` and the gradient ``grad r / u``: the value is the negative
    log-likelihood under the present estimate of Z, the gradient is not that of the value but of
    ``log Z`` with less noise than one batch allows. With rate 1 they are the same.

    The state is a `MovingLogMean`, which says when it is written; ranks share one. Validation reads
    it, mixed with the batch's own r, and leaves it as it is. u is at least rate times r, so no
    weight of a noise sample exceeds their number over rate.

    Args:
        rate: of the moving average, in (0, 1].

    Shapes: score ``(N,)`` at the data, noise_score and noise_log_q ``(N, M)`` at M samples of q a
    row, or ``(N,)`` for one, in nats; per-row values ``(N,)``.
    """

    scope = "batch"  # no row function: it writes state, on all ranks together
    contract = Contract(target=("none",), head="none")

    def __init__(self, rate: float = 0.1) -> None:
        super().__init__()
        self.log_z = MovingLogMean(rate)

    def forward(
        self,
        score: Tensor,
        noise_score: Tensor,
        noise_log_q: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError if there is no noise."""
        ratio = noise_ratio(noise_score, noise_log_q, valid)
        if valid is None:
            valid = torch.ones_like(score, dtype=torch.bool)
        now = log_mean_of_ranks(ratio.detach(), valid)
        log_u = self.log_z.mixed(now)
        if self.training and torch.is_grad_enabled():
            self.log_z.write(now)
        # Without rows there is no estimate; then no row is left to be told so.
        log_u = torch.where(log_u == -torch.inf, 0.0, log_u)
        share = torch.where(valid[:, None], ratio - log_u, 0.0).exp().mean(1)
        score = torch.where(valid, score, 0.0)
        return log_u + (share - share.detach()) - score


def log_mean_of_ranks(x: Tensor, valid: Tensor) -> Tensor:
    """``log mean exp`` over the rows ``(N, M)`` of all ranks that count, 0-dim; -inf if none do."""
    x = torch.where(valid[:, None], x, -torch.inf)
    top = x.max() if x.numel() else x.new_full((), -torch.inf)
    top = all_max(top).clamp(min=torch.finfo(x.dtype).min)
    total = (x - top).exp().sum()
    total, count = all_sum(torch.stack([total, (valid.sum() * x.shape[1]).to(x.dtype)]))
    found: Tensor = top + (total / count.clamp(min=1)).log()
    return found
