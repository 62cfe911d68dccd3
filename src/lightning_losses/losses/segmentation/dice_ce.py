# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dice plus cross-entropy: the common loss of medical segmentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.segmentation.tversky import Tversky
from lightning_losses.losses.shared.class_weights import ClassWeights
from lightning_losses.losses.shared.maps import (
    Activation,
    Maps,
    check_activation,
    head_of,
    read_maps,
    sum_space,
)
from lightning_losses.losses.shared.overlap import Over, Reduction
from lightning_losses.losses.shared.validation import check_length


class DiceCE(nn.Module):
    """``dice_weight (1 - Dice) + ce_weight CE``, Dice a class and CE a pixel.

    Isensee et al., "nnU-Net", arXiv 1809.10486. Some codes (nnU-Net, TopoMortar) take -Dice, which
    is this minus dice_weight: the same gradient, and values below 0. Of sigmoids CE is the binary
    one, mean over the channels.

    Args:
        dice_weight: weight of 1 - Dice.
        ce_weight: weight of the cross-entropy.
        smooth: on numerator and denominator of Dice, at least 0.
        over: Dice of each ``image``, or of the ``batch`` of all ranks.
        background: count class 0 in Dice.
        class_weight: ``(C,)`` of the cross-entropy; of one channel, of no and yes.
        divide_by: what the sum of weighted pixels is divided by: ``weights``, the sum of the
            weights of their labels, as torch and MONAI; ``pixels``, as TopoMortar. Soft labels are
            divided by pixels, as in torch.
        ignore_index: pixels of this label do not count.
        smooth_below: on Dice's denominator, positive; None: ``smooth``.
        square: squares in Dice's denominator.
        dice_class_weight: multiplies Dice's loss of each class that it counts, as in MONAI.
        reduction: ``mean``; ``sum`` of Dice over images and classes and of CE over pixels;
            ``none``: a value an image ``(B,)``.
        activation: as of `Tversky`.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary; label_map ``(B, ...)`` class
    indices, or ``(B, C, ...)`` in [0, 1], soft labels or several labels a pixel; one number.
    """

    scope = "batch"

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        smooth: float = 1e-5,
        over: Over = "image",
        background: bool = True,
        class_weight: Sequence[float] | Tensor | None = None,
        ignore_index: int = -100,
        divide_by: Literal["weights", "pixels"] = "weights",
        smooth_below: float | None = None,
        square: bool = False,
        dice_class_weight: Sequence[float] | Tensor | None = None,
        reduction: Reduction = "mean",
        activation: Activation = "auto",
    ) -> None:
        super().__init__()
        check_activation(activation)
        if divide_by not in ("weights", "pixels"):
            raise ValueError(f"divide_by must be 'weights' or 'pixels', got {divide_by!r}.")
        # (2 TP + s) / (2 TP + FP + FN + s) is Tversky's index with half the smoothing.
        self.dice = Tversky(
            smooth=smooth / 2,
            smooth_below=None if smooth_below is None else smooth_below / 2,
            square=square,
            class_weight=dice_class_weight,
            over=over,
            background=background,
            reduction=reduction,
            activation=activation,
        )
        self.dice_weight, self.ce_weight, self.ignore_index = dice_weight, ce_weight, ignore_index
        weights = None if class_weight is None else ClassWeights(class_weight, "class_weight")
        self.class_weight, self.divide_by = weights, divide_by
        self.activation, self.reduction = activation, reduction
        self.scope = "rows" if reduction == "none" else "batch"
        self.contract = Contract(target=("map",), head=head_of(activation))

    def forward(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim; ``(B,)`` without reduction."""
        maps = read_maps(logit_map, label_map, valid, self.ignore_index, self.activation)
        channels = maps.p.shape[1]
        sigmoid = self.activation == "sigmoid" or channels == 1
        soft = label_map.is_floating_point() and not sigmoid
        losses, weights = self._pixels(maps, sigmoid, soft)
        loss: Tensor = self.dice_weight * self.dice.of_maps(maps)
        return loss + self.ce_weight * self._reduced(losses, weights)

    def _pixels(self, maps: Maps, sigmoid: bool, soft: bool) -> tuple[Tensor, Tensor]:
        """Weighted losses, and what they are divided by; 0 where a pixel does not count."""
        yes = maps.t  # weight of log p, and of log(1 - p)
        no = 1 - yes if sigmoid else torch.zeros_like(yes)
        if self.class_weight is not None:
            channels = yes.shape[1]
            check_length("class_weight", len(self.class_weight.values), max(channels, 2))
            w = self.class_weight.like(yes)
            w = w.reshape(1, -1, *[1] * (yes.ndim - 2))
            yes, no = (yes * w[:, 1:], no * w[:, :1]) if channels == 1 else (yes * w, no * w)
        losses = -(yes * maps.log_p + no * maps.log_rest)
        weights = yes + no
        if not sigmoid:
            losses, weights = (x.sum(1, keepdim=True) for x in (losses, weights))
        if soft or self.divide_by == "pixels":
            weights = torch.ones_like(weights)
        return torch.where(maps.counts, losses, 0.0), torch.where(maps.counts, weights, 0.0)

    def _reduced(self, losses: Tensor, weights: Tensor) -> Tensor:
        if self.reduction == "none":
            by_image = (sum_space(x).sum(1) for x in (losses, weights))
            above, below = by_image
            return above / torch.where(below > 0, below, 1.0)
        total = reduce_with_gradient(losses.sum())
        if self.reduction == "sum":
            return total
        divisor = all_sum(weights.sum())
        return total / torch.where(divisor > 0, divisor, 1.0)
