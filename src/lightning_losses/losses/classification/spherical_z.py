# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The Z-loss of de Brebisson and Vincent: a margin on standardised logits."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract


class SphericalZ(nn.Module):
    """``softplus(a (b - z_y)) / a`` with ``z = (f - mean f) / std f`` over the classes of a row.

    "The Z-loss: a shift and scale invariant classification loss belonging to the spherical family",
    arXiv 1604.08859. No probability model: only the order of the classes means something. z_y is
    at most ``sqrt(C - 1)``, so b should lie below that. A row of equal logits has z = 0.

    From hidden states it makes no logits: mean and variance of ``W h`` over the classes are those
    of the centred head, ``h^T (W^T W / C) h``, one ``(D, D)`` matrix a step, so that what a row
    costs does not grow with the classes. A temperature or a scale of the logits changes nothing.

    Args:
        a: slope, positive.
        b: the z_y to reach, in standard deviations.

    Shapes: logits ``(N, C)`` whole and finite, or hidden ``(N, D)`` and head_weight ``(C, D)`` with
    head_bias ``(C,)``; target ``(N,)``; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(head="none")

    def __init__(self, a: float = 1.0, b: float = 0.0) -> None:
        super().__init__()
        if not a > 0:
            raise ValueError(f"a must be positive, got {a}.")
        self.a, self.b = a, b

    def forward(
        self,
        target: Tensor,
        logits: Tensor | None = None,
        hidden: Tensor | None = None,
        head_weight: Tensor | None = None,
        head_bias: Tensor | None = None,
        softcap: float | None = None,
        class_range: object = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError for neither logits nor hidden and head."""
        if logits is not None:
            y, variance = _of_logits(logits, target)
        elif hidden is not None and head_weight is not None:
            if softcap is not None or class_range is not None:
                raise ValueError(
                    "spherical_z from hidden states takes the head as it is, whole and without "
                    "softcap or class_range: pass finished logits instead."
                )
            if valid is not None:
                hidden = torch.where(valid[:, None], hidden, 0.0)
            y, variance = _of_head(hidden, head_weight, head_bias, target)
        else:
            raise ValueError(
                "spherical_z needs logits, or hidden and head_weight: write "
                "self.compute_loss(logits=..., target=...)."
            )
        std = variance.where(variance > 0, 1.0).sqrt()  # equal logits: a gradient of order 1
        return -F.logsigmoid(self.a * (y / std - self.b)) / self.a


def _of_logits(logits: Tensor, target: Tensor) -> tuple[Tensor, Tensor]:
    """The target's logit above the mean, and the variance over classes, ``(N,)`` each."""
    # E[f^2] - mean^2 cancels in float32 from |f| = 1000 on, and so does the mean itself.
    near = logits - logits.detach().amax(1, keepdim=True)
    centred = near - near.mean(1, keepdim=True)
    return centred.gather(1, target[:, None]).squeeze(1), centred.square().mean(1)


def _of_head(
    hidden: Tensor, head_weight: Tensor, head_bias: Tensor | None, target: Tensor
) -> tuple[Tensor, Tensor]:
    """The same from hidden states; the bias is a column of the head, beside a feature of 1."""
    dtype = torch.promote_types(hidden.dtype, torch.float32)
    h, w = hidden.to(dtype), head_weight.to(dtype)
    if head_bias is not None:
        h = torch.cat([h, torch.ones_like(h[:, :1])], 1)
        w = torch.cat([w, head_bias.to(dtype)[:, None]], 1)
    w = w - w.mean(0)  # about the mean class, or the variance would cancel
    second = w.t() @ w / len(w)
    return (h * w[target]).sum(1), ((h @ second) * h).sum(1)
