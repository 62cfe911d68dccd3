# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Calibration errors whose bins are soft, so that they have gradients."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.correctness import right_rows, root, sums

#: A bin with fewer rows than this is as good as empty.
EMPTY = 1e-5


class SoftBinnedECE(nn.Module):
    """The l2 calibration error, with a row in each bin by a softmax of its distance to the centres.

    ``sqrt(sum_b (n_b / N) (conf_b - acc_b)^2)``, row i being in bin b by the share
    softmax_b(-(c_i - centre_b)^2 / temperature). Karandikar et al., "Soft Calibration Objectives
    for Neural Networks", arXiv 2108.00106. A term beside another loss. Gradient flows through the
    confidence, also through which bin a row is in; correctness has none.

    Args:
        bins: of equal width on [0, 1].
        temperature: of the membership, a squared difference of confidences; None for
            ``1 / (ln(decay) bins^2)``.
        decay: with which a row at one centre is in the next bin ``1 / decay`` times as much.

    Shapes: confidence and prediction from the softmax statistics, target ``(N,)``; one number for
    the batch of all ranks, a fraction.

    Raises:
        ValueError: no bin, a temperature that is not positive, a decay of 1 or less.
    """

    scope = "batch"
    contract = Contract()

    def __init__(
        self, bins: int = 15, temperature: float | None = 0.01, decay: float = 80.0
    ) -> None:
        super().__init__()
        self.bins, self.temperature = bins, _temperature(bins, temperature, decay)

    def forward(
        self, confidence: Tensor, prediction: Tensor, target: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        right, counts = right_rows(prediction, target, valid, confidence)
        share = _membership(confidence, 0.0, self.bins, self.temperature)
        inside, gap = sums(share, share * (confidence - right)[:, None], counts=counts)
        return root((gap.square() / inside.clamp(min=EMPTY)).sum() / inside.sum().clamp(min=1))


class SoftLabelBinnedECE(nn.Module):
    """``mean_i sum_b share_ib (acc_b - c_i)^2``: each row against the accuracy of its soft bins.

    The S-AvUC authors' other calibration error, "Soft Calibration Objectives for Neural Networks",
    arXiv 2108.00106: bins on [1/C, 1], where confidences can be, squared and without a root, so
    that rows within a bin do not make up for each other.

    Args:
        bins: of equal width on [1/C, 1].
        temperature: of the membership, see `SoftBinnedECE`.
        decay: see `SoftBinnedECE`.

    Shapes: logits ``(N, C)``, target ``(N,)``; one number for the batch of all ranks.

    Raises:
        ValueError: as `SoftBinnedECE`.
    """

    scope = "batch"
    contract = Contract()

    def __init__(
        self, bins: int = 15, temperature: float | None = 0.01, decay: float = 80.0
    ) -> None:
        super().__init__()
        self.bins, self.temperature = bins, _temperature(bins, temperature, decay)

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        confidence, prediction = logits.softmax(-1).max(-1)
        right, counts = right_rows(prediction, target, valid, confidence)
        share = _membership(confidence, 1 / logits.shape[-1], self.bins, self.temperature)
        share = (1 - EMPTY) * share + EMPTY / self.bins  # so that no bin is empty
        inside, hits = sums(share, share * right[:, None], counts=counts)
        accuracy = hits / torch.where(inside > 0, inside, 1.0)
        square = share * (accuracy - confidence[:, None]).square()
        total, rows = sums(square.sum(1), counts, counts=counts)
        mean: Tensor = total / rows.detach().clamp(min=1)
        return mean


def _temperature(bins: int, temperature: float | None, decay: float) -> float:
    if bins < 1 or not decay > 1 or not (temperature is None or temperature > 0):
        raise ValueError(
            "soft bins need bins >= 1, a positive temperature (or null) and decay > 1; got "
            f"{bins}, {temperature}, {decay}: write bins=15, temperature=0.01, decay=80."
        )
    return 1 / (math.log(decay) * bins**2) if temperature is None else temperature


def _membership(confidence: Tensor, lowest: float, bins: int, temperature: float) -> Tensor:
    """Share of each row ``(N,)`` in each bin of [lowest, 1], ``(N, B)``."""
    steps = torch.arange(bins, dtype=confidence.dtype, device=confidence.device) + 0.5
    centres = lowest + (1 - lowest) * steps / bins
    return (-(confidence[:, None] - centres).square() / temperature).softmax(1)
