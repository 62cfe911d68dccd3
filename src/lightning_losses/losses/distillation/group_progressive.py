# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Group-progressive distillation: each sub-network learns from the next better one."""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.rows_math import kl_divergence, log_softmax
from lightning_losses.softmax import zero_ignored_rows


class GroupProgressive(nn.Module):
    """``CE(1) + sum_k [alpha KL(p_{k-1} || p_k) + (1 - alpha) CE(k)]``, teachers detached.

    Xu et al., "EQ-Net: Elastic Quantization Neural Networks", arXiv 2308.07650: sub-networks are
    run from the highest precision down; the first learns from labels, each other one from labels
    and from the one before.

    Args:
        alpha: share of distillation, from 0 to 1.
        temperature: of both sides of the divergence, positive; squared it multiplies it.

    Shapes: logits ``(N, C)`` of the best network, subnet_logits ``(N, S, C)`` of the others in
    order, target ``(N,)``; per-row values ``(N,)`` in nats.
    """

    scope = "rows"
    contract = Contract(target=("class",))

    def __init__(self, alpha: float = 0.5, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 <= alpha <= 1 or not temperature > 0:
            raise ValueError(
                f"alpha must be from 0 to 1 and temperature positive, got {alpha} and "
                f"{temperature}."
            )
        self.alpha, self.temperature = alpha, temperature

    def forward(
        self, logits: Tensor, subnet_logits: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if subnet_logits.ndim != 3 or subnet_logits.shape[::2] != logits.shape:
            raise ValueError(
                f"subnet_logits must be ({logits.shape[0]}, S, {logits.shape[1]}) beside logits "
                f"{tuple(logits.shape)}, got {tuple(subnet_logits.shape)}: write "
                "torch.stack([...], 1)."
            )
        own = target if valid is None else torch.where(valid, target, 0)
        t = self.temperature
        networks = [zero_ignored_rows(z, valid) for z in (logits, *subnet_logits.unbind(1))]

        def cross_entropy(z: Tensor) -> Tensor:
            return -log_softmax(z).gather(1, own[:, None])[:, 0]

        value = cross_entropy(logits)
        for teacher, student in pairwise(networks):
            taught = kl_divergence(log_softmax(teacher.detach() / t), log_softmax(student / t))
            value = value + self.alpha * t**2 * taught + (1 - self.alpha) * cross_entropy(student)
        return value
