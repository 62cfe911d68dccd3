# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Skeleton recall: how much of the labels' centre lines the prediction covers."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.maps import read_maps
from lightning_losses.losses.shared.overlap import Over, check_over, reduced


class SkeletonRecall(nn.Module):
    """``1 - (sum p k + s) / (sum k + s)`` with k the skeleton of each foreground class.

    Kirchhoff et al., "Skeleton Recall Loss for Connectivity Conserving and Resource Efficient
    Segmentation of Thin Tubular Structures", arXiv 2404.03010; beside `dice_ce` with weight 1. The
    authors take minus the recall: the same gradient, 1 lower. The skeletons are made in the data
    loader: skeletonize each label map (scikit-image), dilate twice, keep what lies in the label.
    `metrics.BettiError` counts wrong pieces and holes.

    Args:
        smooth: s, positive; 1 in the authors' code, 1e-5 in TopoMortar's.
        over: sums of the ``batch`` of all ranks, or of each ``image``.
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, ...)`` or ``(B, 1, ...)`` binary, skeleton_map ``(B, ...)`` with the
    class on a skeleton and 0 elsewhere; one number.
    """

    scope = "batch"
    contract = Contract(target=("map",))

    def __init__(self, smooth: float = 1.0, over: Over = "batch", ignore_index: int = -100) -> None:
        super().__init__()
        check_over(over)
        if not smooth > 0:
            raise ValueError(f"smooth must be positive, got {smooth}.")
        self.smooth, self.over, self.ignore_index = smooth, over, ignore_index

    def forward(
        self, logit_map: Tensor, skeleton_map: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        maps = read_maps(
            logit_map, skeleton_map, valid, self.ignore_index, hard=True, name="skeleton_map"
        )
        _, rest, k, _, _, counts = maps.foreground()
        return reduced(self._score, (rest * k, k), counts, self.over)

    def _score(self, missed: Tensor, length: Tensor) -> Tensor:
        return missed / (length + self.smooth)  # 1 - recall, without its cancellation
