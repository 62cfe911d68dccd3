# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Vector scaling: a factor and an offset for the logit of each class."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lightning_losses.calibrators.calibrator import Calibrator, minimise


class VectorScaling(Calibrator):
    """`softmax(w * z + b)` with `w` and `b` `(C,)` of least negative log-likelihood.

    From arXiv 1706.04599. Of the mean likelihood, less `(|w - 1|^2 + |b|^2) / (2 N)`: as much as
    one row would say, so that a class without rows does not send its offset to -inf. Convex, solved
    by LBFGS from `w = 1, b = 0`.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> calibrator = VectorScaling().fit(logits, target)
        >>> [round(p, 2) for p in calibrator(logits)[0].tolist()]
        [0.75, 0.25]
    """

    names = ("weight", "bias")
    weight: Tensor
    bias: Tensor

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The factors and offsets."""
        w = torch.ones_like(logits[0]).requires_grad_()
        b = torch.zeros_like(logits[0]).requires_grad_()

        def loss() -> Tensor:
            prior = ((w - 1).square().sum() + b.square().sum()) / (2 * len(logits))
            return functional.cross_entropy(logits * w + b, target) + prior

        minimise(loss, (w, b))
        return {"weight": w, "bias": b}

    def apply_to(self, logits: Tensor) -> Tensor:
        """`softmax(weight * logits + bias)`."""
        scaled = logits * self.number("weight", logits) + self.number("bias", logits)
        return scaled.softmax(-1)
