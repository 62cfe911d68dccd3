# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Tversky loss: Dice with a price each for false positives and false negatives."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.class_weights import ClassWeights
from lightning_losses.losses.shared.maps import (
    Activation,
    Maps,
    check_activation,
    head_of,
    read_maps,
)
from lightning_losses.losses.shared.overlap import (
    Over,
    Reduction,
    check_over,
    check_reduction,
    reduced,
)


class Tversky(nn.Module):
    """``(1 - (TP + s) / (TP + a FP + b FN + s))^exponent``, mean over images and classes.

    Salehi et al., arXiv 1706.05721; with an exponent below 1 the focal Tversky loss of Abraham and
    Khan, arXiv 1810.07842. At a = b = 1/2 it is the Dice loss, at 1 the Jaccard loss. Papers name
    a and b in either order; here each says what it weighs.

    TP is the sum of min(p, t), FP that of what p has above t and FN of what it lacks: for labels of
    0 and 1 what papers write, and for soft labels least where p = t, where the product p t would be
    least at p = 1 (Wang et al., "Dice Semimetric Losses", arXiv 2303.16296).

    Args:
        fp_weight: a, price of false positives.
        fn_weight: b, price of false negatives.
        smooth: s, at least 0.
        smooth_below: s of the denominator, positive; None: the same.
        square: squares, as V-Net's Dice (arXiv 1606.04797): TP is the sum of p t, FP and FN those
            of the squared differences, so that a = b = 1/2 gives 2 sum p t / (sum p^2 + sum t^2).
        exponent: focuses on hard images above 1, on easy ones below.
        class_weight: multiplies the loss of each class that is counted; not divided by their sum,
            as in MONAI.
        over: sums of each ``image``, or of the ``batch`` of all ranks.
        background: count class 0 of several.
        reduction: ``mean`` over images and classes; ``sum`` over both; ``none``: a value an image
            ``(B,)``, the mean over its classes.
        activation: ``auto`` is the softmax of several channels and the sigmoid of one;
            ``sigmoid`` of each channel; ``none``: logit_map holds probabilities.
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary; label_map ``(B, ...)`` class
    indices, or ``(B, C, ...)`` in [0, 1], soft labels or several labels a pixel; one number.
    For rows instead of maps, write ``inputs: {logit_map: logits, label_map: target}`` and
    ``over: batch``.
    """

    scope = "batch"

    def __init__(
        self,
        fp_weight: float = 0.5,
        fn_weight: float = 0.5,
        smooth: float = 1e-5,
        exponent: float = 1.0,
        over: Over = "image",
        background: bool = True,
        ignore_index: int = -100,
        smooth_below: float | None = None,
        square: bool = False,
        class_weight: Sequence[float] | Tensor | None = None,
        reduction: Reduction = "mean",
        activation: Activation = "auto",
    ) -> None:
        super().__init__()
        check_over(over)
        check_reduction(reduction, over)
        check_activation(activation)
        below = smooth if smooth_below is None else smooth_below
        if not (fp_weight >= 0 and fn_weight >= 0 and smooth >= 0 and below > 0 and exponent > 0):
            raise ValueError(
                "tversky needs fp_weight, fn_weight, smooth >= 0, what is added below and exponent "
                f"> 0; got {fp_weight}, {fn_weight}, {smooth}, {below}, {exponent}."
            )
        self.fp_weight, self.fn_weight, self.square = fp_weight, fn_weight, square
        self.smooth, self.below, self.exponent = smooth, below, exponent
        self.over, self.background, self.ignore_index = over, background, ignore_index
        self.reduction, self.activation = reduction, activation
        weights = None if class_weight is None else ClassWeights(class_weight, "class_weight")
        self.class_weight = None if weights is None else weights.values
        self.scope = "rows" if reduction == "none" else "batch"
        self.contract = Contract(target=("map",), head=head_of(activation))

    def forward(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim; ``(B,)`` without reduction."""
        maps = read_maps(logit_map, label_map, valid, self.ignore_index, self.activation)
        return self.of_maps(maps)

    def of_maps(self, maps: Maps) -> Tensor:
        """The same of maps that were read."""
        p, rest, t, _, _, counts = maps if self.background else maps.foreground()
        more, less = F.relu(p - t), F.relu(rest - (1 - t))  # what p has too much, and lacks
        tp, fp, fn = (p * t, more**2, less**2) if self.square else (p - more, more, less)
        return reduced(
            self._score, (tp, fp, fn), counts, self.over, self.reduction, self.class_weight
        )

    def _score(self, tp: Tensor, fp: Tensor, fn: Tensor) -> Tensor:
        # 1 - index, without its cancellation.
        wrong = self.fp_weight * fp + self.fn_weight * fn
        loss = (wrong + (self.below - self.smooth)) / (tp + wrong + self.below)
        if self.exponent == 1:
            return loss
        # A power below 1 has an infinite slope at 0.
        tiny = torch.finfo(loss.dtype).tiny
        return torch.where(loss > tiny, loss.clamp(min=tiny).pow(self.exponent), loss)
