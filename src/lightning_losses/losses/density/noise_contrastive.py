# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Noise-contrastive estimation: an unnormalised model learns to tell data from noise."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract


class NoiseContrastive(nn.Module):
    """``softplus(-g(x)) + sum_m softplus(g(x_m))`` with ``g = score - log q - log M``.

    g is the log odds of data against M noise samples from q a row. The least loss is where the
    score is the log-density of the data, normalised: the model's own log Z, if it has one as a
    parameter, is learned too. Gutmann and Hyvarinen, "Noise-Contrastive Estimation of Unnormalized
    Statistical Models", JMLR 13 (2012).

    Shapes: score ``(N,)`` and log_q ``(N,)`` at the data, noise_score and noise_log_q ``(N, M)`` at
    the noise, or ``(N,)`` for one sample a row, log-densities in nats; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def forward(
        self,
        score: Tensor,
        log_q: Tensor,
        noise_score: Tensor,
        noise_log_q: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError if there is no noise."""
        noise = noise_ratio(noise_score, noise_log_q, valid)
        data = score - log_q
        if valid is not None:
            data = torch.where(valid, data, 0.0)
        odds = math.log(noise.shape[1])
        return F.softplus(odds - data) + F.softplus(noise - odds).sum(1)


def noise_ratio(noise_score: Tensor, noise_log_q: Tensor, valid: Tensor | None) -> Tensor:
    """``score - log q`` of the noise ``(N, M)``, 0 where a row does not count."""
    if noise_score.shape != noise_log_q.shape:
        raise ValueError(
            f"noise_score {tuple(noise_score.shape)} and noise_log_q {tuple(noise_log_q.shape)} "
            "must have one shape, (N, M) for M noise samples a row."
        )
    ratio = noise_score - noise_log_q
    ratio = ratio[:, None] if ratio.ndim == 1 else ratio
    if not ratio.shape[1]:
        raise ValueError(
            f"noise_score {tuple(noise_score.shape)} holds no noise; it must be (N, M) with M at "
            "least 1: draw a sample a row from the noise distribution."
        )
    return ratio if valid is None else torch.where(valid[:, None], ratio, 0.0)
