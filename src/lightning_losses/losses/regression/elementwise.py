# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Squared, absolute and Huber errors, entry by entry: torch's, with rows that do not count."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.estimates import error_rows

Distance = Literal["squared", "absolute", "smooth", "huber"]


class ElementwiseError(nn.Module):
    """Mean over the entries of a row of a distance of estimate and reference.

    ``squared`` d^2 (nn.MSELoss), ``absolute`` |d| (nn.L1Loss), ``smooth`` d^2 / (2 width) up to
    width and |d| - width / 2 beyond (nn.SmoothL1Loss with beta), ``huber`` width times that
    (nn.HuberLoss with delta; Huber, "Robust Estimation of a Location Parameter", 1964). The mean
    over rows is torch's mean over all entries. For the sum over the entries of a row see
    `SquaredError`.

    Args:
        distance: one of the four.
        width: where squares become lengths, in the unit of the reference; positive.

    Shapes: estimate and reference ``(N, ...)`` of one shape; per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def __init__(self, distance: Distance = "squared", width: float = 1.0) -> None:
        super().__init__()
        if distance not in get_args(Distance):
            raise ValueError(
                f"distance must be one of {', '.join(get_args(Distance))}, got {distance!r}."
            )
        if not width > 0:
            raise ValueError(
                f"width must be positive, got {width}; for 0 write distance: absolute."
            )
        self.distance, self.width = distance, width

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError if the shapes differ."""
        error = error_rows(estimate, reference, valid)
        if self.distance == "squared":
            losses = error.square()
        elif self.distance == "absolute":
            losses = error.abs()
        else:
            losses = F.huber_loss(
                error, torch.zeros_like(error), reduction="none", delta=self.width
            )
            losses = losses / self.width if self.distance == "smooth" else losses
        return losses.sum(1) / max(losses.shape[1], 1)
