# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of class scores and labels as probabilities, one-hot labels, and which pixels count."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.losses.shared.rows_math import LOWEST
from lightning_losses.losses.shared.validation import check_binary


class Maps(NamedTuple):
    """Probabilities and labels ``(B, C, ...)``, both 0 at pixels that do not count."""

    p: Tensor
    t: Tensor
    counts: Tensor  # (B, 1, ...) bool


def read_maps(
    logit_map: Tensor,
    label_map: Tensor,
    valid: Tensor | None = None,
    ignore_index: int = -100,
    background: bool = True,
) -> Maps:
    """Softmax over C classes, or the sigmoid of one channel; rows ``(N,)``, ``(N, C)`` will do.

    Args:
        logit_map: ``(B, C, ...)``.
        label_map: ``(B, ...)`` or ``(B, 1, ...)``; integer, or for one channel in [0, 1].
        valid: images ``(B,)`` or pixels that count.
        ignore_index: pixels of this label do not count.
        background: keep class 0 of several.
    """
    if logit_map.ndim == 1:
        logit_map = logit_map[:, None]
    b, c, *space = logit_map.shape
    labels = label_map.squeeze(1) if label_map.shape == (b, 1, *space) else label_map
    if labels.shape != (b, *space):
        raise ValueError(
            f"label_map must be {(b, *space)} beside logit_map {(b, c, *space)} (classes second), "
            f"got {tuple(label_map.shape)}."
        )
    z, labels, counts = harmless(logit_map, labels[:, None], valid, ignore_index)
    if c == 1:
        p, t = z.sigmoid(), labels.to(z.dtype)
    else:
        p = z.clamp(min=LOWEST).softmax(1)
        t = torch.zeros_like(p).scatter(1, labels.long(), 1.0)
        first = int(not background)
        p, t = p[:, first:], t[:, first:]
    return Maps(torch.where(counts, p, 0.0), torch.where(counts, t, 0.0), counts)


def harmless(
    logit_map: Tensor, labels: Tensor, valid: Tensor | None, ignore_index: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Logits and labels ``(B, 1, ...)``, 0 at pixels that do not count, and which ones do.

    Raises ValueError for labels of one channel outside [0, 1], on a CPU.
    """
    counts = labels != ignore_index
    counts = counts & pixels(valid, counts)
    labels = torch.where(counts, labels, 0)
    if logit_map.shape[1] == 1:
        check_binary(labels, "label_map")
    # The gradient of a softmax of inf is NaN.
    return torch.where(counts, logit_map, 0.0), labels, counts


def pixels(valid: Tensor | None, counts: Tensor) -> Tensor:
    """``valid`` of images or of pixels, as the mask ``(B, 1, ...)`` that it is."""
    if valid is None:
        return torch.ones_like(counts)
    if valid.numel() == counts.numel():
        return valid.reshape(counts.shape)
    if valid.numel() == len(counts):
        return valid.reshape(-1, *[1] * (counts.ndim - 1)).expand_as(counts)
    raise ValueError(
        f"mask and target say which of {valid.numel()} rows count; maps {tuple(counts.shape)} "
        "have neither as many images nor as many pixels."
    )


def sum_space(x: Tensor) -> Tensor:
    """Sum over pixels: ``(B, C, ...)`` to ``(B, C)``."""
    return x.sum(tuple(range(2, x.ndim))) if x.ndim > 2 else x
