# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tversky loss: Dice with a price each for false positives and false negatives."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.maps import read_maps
from lightning_losses.losses.shared.overlap import Over, check_over, mean_of_scores


class Tversky(nn.Module):
    """``(1 - (TP + s) / (TP + a FP + b FN + s))^exponent``, mean over images and classes.

    Salehi et al., arXiv 1706.05721; with an exponent below 1 the focal Tversky loss of Abraham and
    Khan, arXiv 1810.07842. At a = b = 1/2 it is the Dice loss, at 1 the Jaccard loss. Papers name
    a and b in either order; here each says what it weighs.

    Args:
        fp_weight: a, price of false positives.
        fn_weight: b, price of false negatives.
        smooth: s, positive.
        exponent: focuses on hard images above 1, on easy ones below.
        over: sums of each ``image``, or of the ``batch`` of all ranks.
        background: count class 0 of several.
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary, label_map ``(B, ...)``; one number.
    For rows instead of maps, write ``inputs: {logit_map: logits, label_map: target}`` and
    ``over: batch``.
    """

    scope = "batch"
    contract = Contract(target=("map",))

    def __init__(
        self,
        fp_weight: float = 0.5,
        fn_weight: float = 0.5,
        smooth: float = 1e-5,
        exponent: float = 1.0,
        over: Over = "image",
        background: bool = True,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        check_over(over)
        if not (fp_weight >= 0 and fn_weight >= 0 and smooth > 0 and exponent > 0):
            raise ValueError(
                "tversky needs fp_weight, fn_weight >= 0 and smooth, exponent > 0; got "
                f"{fp_weight}, {fn_weight}, {smooth}, {exponent}."
            )
        self.fp_weight, self.fn_weight = fp_weight, fn_weight
        self.smooth, self.exponent, self.over = smooth, exponent, over
        self.background, self.ignore_index = background, ignore_index

    def forward(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        p, t, counts = read_maps(logit_map, label_map, valid, self.ignore_index, self.background)
        return mean_of_scores(self._score, (p * t, p * (1 - t), (1 - p) * t), counts, self.over)

    def _score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        # 1 - index, without its cancellation.
        wrong = self.fp_weight * fp + self.fn_weight * fn
        loss = wrong / (tp + wrong + self.smooth)
        if self.exponent == 1:
            return loss
        # A power below 1 has an infinite slope at 0.
        tiny = torch.finfo(loss.dtype).tiny
        return torch.where(loss > tiny, loss.clamp(min=tiny).pow(self.exponent), loss)
