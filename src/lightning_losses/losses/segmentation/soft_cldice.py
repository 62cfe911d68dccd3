# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""clDice: overlap of centre lines, so that thin structures stay connected."""

from __future__ import annotations

from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.maps import read_maps
from lightning_losses.losses.shared.overlap import Over, check_over, reduced


class SoftClDice(nn.Module):
    """``(1 - a) (1 - Dice) + a (1 - 2 P R / (P + R))``, P and R the overlap of soft skeletons.

    P is the share of the predicted skeleton inside the label, R that of the label's skeleton inside
    the prediction. Shit et al., "clDice", arXiv 2003.07311. Whether topology is right, pieces and
    holes, is counted by `metrics.BettiError` (2D, not differentiable): Dice alone does not see it.

    Args:
        iterations: of erosion, at least the largest radius of a structure, in pixels. The authors'
            code has 10 whatever it is told, MONAI 3.
        smooth: positive, on every numerator and denominator.
        cldice_weight: a; 1 is clDice alone.
        over: sums of the ``batch`` of all ranks, as the authors; or of each ``image``, as MONAI.
        classes: ``joint``: all foreground channels are one set, as the authors' code and MONAI's;
            ``mean``: each class is one, and the mean is over them.
        ignore_index: pixels of this label do not count.

    Shapes: logit_map ``(B, C, H, W)`` or ``(B, C, D, H, W)``, class 0 of several being background;
    label_map ``(B, ...)``; one number. The label's skeleton gets no gradient.
    """

    scope = "batch"
    contract = Contract(target=("map",))

    def __init__(
        self,
        iterations: int = 10,
        smooth: float = 1.0,
        cldice_weight: float = 1.0,
        over: Over = "batch",
        ignore_index: int = -100,
        classes: Literal["joint", "mean"] = "joint",
    ) -> None:
        super().__init__()
        check_over(over)
        if classes not in ("joint", "mean"):
            raise ValueError(f"classes must be 'joint' or 'mean', got {classes!r}.")
        self.classes = classes
        if not (iterations >= 0 and smooth > 0 and 0 <= cldice_weight <= 1):
            raise ValueError(
                "soft_cldice needs iterations >= 0, smooth > 0 and cldice_weight in [0, 1]; got "
                f"{iterations}, {smooth}, {cldice_weight}."
            )
        self.iterations, self.smooth, self.over = iterations, smooth, over
        self.cldice_weight, self.ignore_index = cldice_weight, ignore_index

    def forward(self, logit_map: Tensor, label_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        if logit_map.ndim not in (4, 5):
            raise ValueError(
                f"logit_map must be maps (B, C, H, W) or volumes (B, C, D, H, W), got "
                f"{tuple(logit_map.shape)}."
            )
        maps = read_maps(logit_map, label_map, valid, self.ignore_index, hard=True).foreground()
        return self.of_probabilities(maps.p, maps.t, maps.counts)

    def of_probabilities(self, p: Tensor, t: Tensor, counts: Tensor) -> Tensor:
        """The loss of probabilities and 0/1 labels ``(B, C, ...)`` of the foreground, 0-dim."""
        lines = soft_skeleton(p, self.iterations)
        with torch.no_grad():
            true_lines = soft_skeleton(t, self.iterations)
        parts: tuple[Tensor, ...] = (lines * t, lines, true_lines * p, true_lines, p * t, p, t)
        if self.classes == "joint":
            parts = tuple(part.sum(1, keepdim=True) for part in parts)
        return reduced(self._score, parts, counts, self.over)

    def _score(self, lt: Tensor, l: Tensor, kp: Tensor, k: Tensor, *dice: Tensor) -> Tensor:  # noqa: E741
        s, a = self.smooth, self.cldice_weight
        precision, recall = (lt + s) / (l + s), (kp + s) / (k + s)
        loss = a * (1 - 2 * precision * recall / (precision + recall))
        if a == 1:
            return loss
        pt, p, t = dice
        return loss + (1 - a) * (1 - (2 * pt + s) / (p + t + s))


def soft_skeleton(x: Tensor, iterations: int) -> Tensor:
    """Centre lines of maps in [0, 1], by erosions and openings with small pools."""
    skeleton = F.relu(x - _open(x))
    for _ in range(iterations):
        x = _erode(x)
        rest = F.relu(x - _open(x))
        skeleton = skeleton + F.relu(rest - skeleton * rest)
    return skeleton


def _pool(x: Tensor, size: tuple[int, ...]) -> Tensor:
    padding = tuple(n // 2 for n in size)
    if len(size) == 2:
        return F.max_pool2d(x, size, 1, padding)
    return F.max_pool3d(x, size, 1, padding)


def _erode(x: Tensor) -> Tensor:
    """Smallest value of the cross around a pixel."""
    n = x.ndim - 2
    arms = [_pool(-x, tuple(3 if i == axis else 1 for i in range(n))) for axis in range(n)]
    return -torch.stack(arms).amax(0) if n > 2 else -torch.maximum(arms[0], arms[1])


def _open(x: Tensor) -> Tensor:
    """Erosion, then the largest value of the square around a pixel."""
    return _pool(_erode(x), (3,) * (x.ndim - 2))
