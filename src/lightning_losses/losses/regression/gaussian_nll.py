# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Negative log-likelihood of a Gaussian whose mean and variance a network predicts."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.estimates import error_rows
from lightning_losses.softmax import may_ask


class GaussianNLL(nn.Module):
    """``(log v + d^2 / v) / 2`` with v the variance, in nats; mean over the entries of a row.

    nn.GaussianNLLLoss; Nix and Weigend, "Estimating the mean and variance of the target probability
    distribution", 1994. A variance below ``eps`` is taken as ``eps``, and its gradient passes as if
    it were not, as in torch.

    Args:
        eps: least variance, positive, in the squared unit of the reference.
        full: add log(2 pi) / 2, which makes it a log-density.

    Shapes: estimate and reference ``(N, ...)`` of one shape; variance, at least 0, of the same, or
    with 1 in its last dimension or without it: one for all entries of that dimension. Per-row
    values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def __init__(self, eps: float = 1e-6, full: bool = False) -> None:
        super().__init__()
        if not eps > 0:
            raise ValueError(f"eps must be positive, got {eps}.")
        self.eps, self.full = eps, full

    def forward(
        self,
        estimate: Tensor,
        reference: Tensor,
        variance: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``.

        Raises:
            ValueError: shapes that do not go together; a negative variance, on a CPU.
        """
        error = error_rows(estimate, reference, valid)
        v = self._rows(variance, estimate, valid).to(error.dtype)
        v = v + (v.detach().clamp(min=self.eps) - v.detach())
        losses = (v.log() + error.square() / v) / 2
        if self.full:
            losses = losses + math.log(2 * math.pi) / 2
        return losses.sum(1) / max(losses.shape[1], 1)

    def _rows(self, variance: Tensor, estimate: Tensor, valid: Tensor | None) -> Tensor:
        """As many entries as the estimate, ``(N, D)``; 1 in rows that do not count."""
        shape = estimate.shape
        if variance.shape == shape[:-1] and variance.ndim:
            variance = variance[..., None]
        if variance.shape not in (shape, (*shape[:-1], 1)):
            raise ValueError(
                f"variance must be {tuple(shape)}, as estimate, or {(*shape[:-1], 1)}, got "
                f"{tuple(variance.shape)}: pass one number an entry."
            )
        v = variance.expand(shape).reshape(len(estimate), math.prod(shape[1:]))
        v = v if valid is None else torch.where(valid[:, None], v, 1.0)
        if v.numel() and may_ask(v) and float(v.detach().min()) < 0:
            raise ValueError(
                f"variance must be at least 0, found {float(v.min()):.4g}: pass softplus or exp of "
                "what the network says, not that itself."
            )
        return v
