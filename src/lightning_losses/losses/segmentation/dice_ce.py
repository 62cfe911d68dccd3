# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Dice plus cross-entropy: the common loss of medical segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.segmentation.tversky import Tversky
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.maps import harmless
from lightning_losses.losses.shared.overlap import Over
from lightning_losses.losses.shared.rows_math import LOWEST
from lightning_losses.losses.shared.validation import check_length


class DiceCE(nn.Module):
    """``dice_weight (1 - Dice) + ce_weight CE``, Dice a class and CE a pixel.

    Isensee et al., "nnU-Net", arXiv 1809.10486. Some codes (nnU-Net, TopoMortar) take -Dice, which
    is this minus dice_weight: the same gradient, and values below 0.

    Args:
        dice_weight: weight of 1 - Dice.
        ce_weight: weight of the cross-entropy.
        smooth: positive, on numerator and denominator of Dice.
        over: Dice of each ``image``, or of the ``batch`` of all ranks.
        background: count class 0 in Dice.
        class_weight: ``(C,)`` of the cross-entropy; the mean is over pixels.
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary, label_map ``(B, ...)``; one number.
    """

    scope = "batch"
    contract = Contract(target=("map",))

    def __init__(
        self,
        dice_weight: float = 1.0,
        ce_weight: float = 1.0,
        smooth: float = 1e-5,
        over: Over = "image",
        background: bool = True,
        class_weight: Sequence[float] | None = None,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        # (2 TP + s) / (2 TP + FP + FN + s) is Tversky's index with half the smoothing.
        self.dice = Tversky(
            smooth=smooth / 2, over=over, background=background, ignore_index=ignore_index
        )
        self.dice_weight, self.ce_weight, self.ignore_index = dice_weight, ce_weight, ignore_index
        self.class_weight = None if class_weight is None else tuple(float(w) for w in class_weight)

    def forward(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        dice: Tensor = self.dice(logit_map, label_map, valid)
        return self.dice_weight * dice + self.ce_weight * self._ce(logit_map, label_map, valid)

    def _ce(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None) -> Tensor:
        labels = label_map.reshape(len(logit_map), 1, *logit_map.shape[2:])
        z, labels, counts = harmless(logit_map, labels, valid, self.ignore_index)
        if z.shape[1] == 1:
            losses = F.softplus(z) - z * labels
        else:
            log_p = z.clamp(min=LOWEST).log_softmax(1)
            losses = -log_p.gather(1, labels.long())
        if self.class_weight is not None:
            check_length("class_weight", len(self.class_weight), max(z.shape[1], 2))
            losses = losses * constant(self.class_weight, losses)[labels.long()]
        total = torch.where(counts, losses, 0.0).sum()
        return reduce_with_gradient(total) / all_sum(counts.sum()).clamp(min=1)
