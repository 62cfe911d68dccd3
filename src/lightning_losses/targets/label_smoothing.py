# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Label smoothing as a target: for losses on soft targets without smoothing of their own."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract


class LabelSmoothing(nn.Module):
    """``(1 - smoothing) target + smoothing / C`` on every class, the true one included.

    Szegedy et al., arXiv 1512.00567. With cross-entropy, ``loss=label_smoothing`` gives the same
    numbers and never makes the ``(N, C)`` target.

    Args:
        num_classes: C, the number of logits.
        smoothing: mass moved to the uniform distribution, a fraction in [0, 1].

    Shapes: target ``(N,)`` class indices or ``(N, C)`` soft; returns ``(N, C)``, float32 at least.

    Raises:
        ValueError: fewer than one class, or a smoothing outside [0, 1].

    Examples:
        >>> LabelSmoothing(num_classes=4, smoothing=0.1)(torch.tensor([2]))
        tensor([[0.0250, 0.0250, 0.9250, 0.0250]])
    """

    contract = Contract(target=("class", "soft"))

    def __init__(self, num_classes: int, smoothing: float = 0.1) -> None:
        super().__init__()
        if num_classes < 1 or not 0 <= smoothing <= 1:
            raise ValueError(
                "label_smoothing needs num_classes >= 1 and smoothing in [0, 1]; got "
                f"{num_classes}, {smoothing}."
            )
        self.num_classes, self.smoothing = num_classes, smoothing

    def forward(self, target: Tensor) -> Tensor:
        """Soft targets ``(N, C)``."""
        if target.ndim == 2:
            soft = target.to(torch.promote_types(target.dtype, torch.float32))
        else:
            soft = torch.zeros(len(target), self.num_classes, device=target.device)
            soft = soft.scatter(1, target[:, None], 1.0)
        return (1 - self.smoothing) * soft + self.smoothing / self.num_classes
