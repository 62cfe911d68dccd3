# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dirichlet calibration: a matrix on log-probabilities, held near a diagonal."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from lightning_losses.calibrators.calibrator import Calibrator, minimise

#: Most classes; the matrix has that many squared entries.
MOST_CLASSES = 1000


class DirichletScaling(Calibrator):
    """`softmax(W log p + b)` with off-diagonal and intercept regularisation (arXiv 1910.12656).

    Minimises the mean negative log-likelihood plus `off_diagonal` times the mean square of the
    entries of `W` off its diagonal plus `intercept` times the mean square of `b`. Convex, solved
    by LBFGS from `W = 1, b = 0`.

    Args:
        off_diagonal: weight on the entries off the diagonal.
        intercept: weight on the offsets.

    Shapes: `fit` on logits `(N, C)` of any floating dtype and classes `(N,)` int64; logits
    `(..., C)` to probabilities `(..., C)`, float32 at least.

    Raises:
        ValueError: more than 1000 classes, in `fit`.

    Examples:
        >>> logits = torch.tensor([[2.0, -2.0]]).repeat(100, 1)  # 98 % sure, and right in 75 of 100
        >>> target = (torch.arange(100) >= 75).long()
        >>> calibrator = DirichletScaling().fit(logits, target)
        >>> [round(p, 2) for p in calibrator(logits)[0].tolist()]
        [0.75, 0.25]
    """

    names = ("weight", "bias")
    weight: Tensor
    bias: Tensor

    def __init__(self, off_diagonal: float = 1e-2, intercept: float = 1e-2) -> None:
        super().__init__()
        self.off_diagonal, self.intercept = off_diagonal, intercept

    def solve(self, logits: Tensor, target: Tensor) -> dict[str, Tensor]:
        """The matrix `(C, C)` and offsets `(C,)`."""
        classes = logits.shape[1]
        if classes > MOST_CLASSES:
            raise ValueError(
                f"DirichletScaling has a matrix of classes squared, found {classes} classes, more "
                f"than {MOST_CLASSES}; use TemperatureScaling or VectorScaling"
            )
        log_p = floored(logits)
        w = torch.eye(classes).to(log_p).requires_grad_()
        b = torch.zeros_like(log_p[0]).requires_grad_()
        off = 1 - torch.eye(classes).to(log_p)

        def loss() -> Tensor:
            apart = (w * off).square().sum() / max(classes * (classes - 1), 1)
            penalty = self.off_diagonal * apart + self.intercept * b.square().mean()
            return functional.cross_entropy(log_p @ w.t() + b, target) + penalty

        minimise(loss, (w, b))
        return {"weight": w, "bias": b}

    def apply_to(self, logits: Tensor) -> Tensor:
        """`softmax(weight log p + bias)`."""
        log_p = floored(logits)
        scaled = log_p @ self.number("weight", logits).t() + self.number("bias", logits)
        return scaled.softmax(-1)


def floored(logits: Tensor) -> Tensor:
    """log p, not below -50: a masked class at -1e5 would drown every other in the product."""
    return logits.log_softmax(-1).clamp(min=-50.0)
