# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy of pixels for continual segmentation: background may be a class of yesterday."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.maps import read_maps


class BackgroundAwareCE(nn.Module):
    """``-w log p_y``, where w is below 1 on background that may show a class of an earlier task.

    The labels of a task leave earlier classes as background, class 0. There ``w = (1 - s)^gamma``
    with s the chance of an earlier class, taken for 1 above the threshold; elsewhere w is 1. After
    ElAraby et al., "BACS: Background Aware Continual Semantic Segmentation", arXiv 2404.13148,
    whose s is a detector's, from the distance to prototypes of earlier tasks; 1 minus the
    background probability of the previous model will do.

    With ``old_classes`` it is the sum of two cross-entropies, as in the authors' code: background
    against everything else, with w; and each new class against the rest, background and old
    classes together, without. Thus a background pixel may be any old class at no cost but w. The
    mean is over the pixels that count; the authors' includes ignored ones.

    Args:
        old_classes: background and the classes of earlier tasks, which come first; None for the
            plain weighted cross-entropy.
        gamma: at least 0; 0 is unweighted.
        threshold: of s, in [0, 1].
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary, label_map ``(B, ...)``,
    old_class_map ``(B, ...)`` s in [0, 1], without gradient; one number.
    """

    scope = "batch"
    contract = Contract(target=("map",))

    def __init__(
        self,
        old_classes: int | None = None,
        gamma: float = 2.0,
        threshold: float = 0.5,
        ignore_index: int = -100,
    ) -> None:
        super().__init__()
        if not (gamma >= 0 and 0 <= threshold <= 1 and (old_classes is None or old_classes >= 1)):
            raise ValueError(
                "background_aware_ce needs gamma >= 0, threshold in [0, 1] and old_classes of at "
                f"least 1, or none; got {gamma}, {threshold} and {old_classes}."
            )
        self.old_classes, self.ignore_index = old_classes, ignore_index
        self.gamma, self.threshold = gamma, threshold

    def forward(
        self,
        logit_map: Tensor,
        label_map: Tensor,
        old_class_map: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        if old_class_map.shape != label_map.shape:
            raise ValueError(
                f"old_class_map must be {tuple(label_map.shape)}, as label_map, got "
                f"{tuple(old_class_map.shape)}."
            )
        maps = read_maps(logit_map, label_map, valid, self.ignore_index, hard=True)
        log_p, t, counts = maps.log_p, maps.t, maps.counts
        if log_p.shape[1] == 1:
            log_p, t = torch.cat([maps.log_rest, log_p], 1), torch.cat([1 - t, t], 1)
        old = torch.where(counts, old_class_map.detach().reshape(counts.shape), 0.0).to(t.dtype)
        weight = (1 - torch.where(old > self.threshold, 1.0, old)).pow(self.gamma)
        background = t[:, :1] > 0
        losses = self._losses(log_p, t, torch.where(background, weight, 1.0))
        total = reduce_with_gradient(torch.where(counts, losses, 0.0).sum())
        return total / all_sum(counts.sum()).clamp(min=1)

    def _losses(self, log_p: Tensor, t: Tensor, weight: Tensor) -> Tensor:
        """Of each pixel ``(B, 1, ...)``, from one-hot labels ``(B, C, ...)``."""
        of_label = -(t * log_p).sum(1, keepdim=True)
        if self.old_classes is None:
            return weight * of_label
        if self.old_classes >= log_p.shape[1]:
            raise ValueError(
                f"old_classes={self.old_classes} leaves no new class among {log_p.shape[1]}: it "
                "counts background and the classes of earlier tasks."
            )
        anything = -log_p[:, 1:].logsumexp(1, keepdim=True)
        rest = -log_p[:, : self.old_classes].logsumexp(1, keepdim=True)
        against_background = torch.where(t[:, :1] > 0, of_label, anything)
        old = (t[:, : self.old_classes] > 0).any(1, keepdim=True)
        new = torch.where(old, rest, of_label)
        return weight * against_background + new
