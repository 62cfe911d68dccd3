# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Maps of class scores and labels as probabilities, one-hot labels, and which pixels count."""

from __future__ import annotations

from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from lightning_losses.contract import HeadKind
from lightning_losses.losses.shared.rows_math import LOWEST, log_p_and_rest
from lightning_losses.losses.shared.validation import (
    check_binary,
    check_class_map,
    check_class_range,
)
from lightning_losses.softmax import may_ask

#: What a map of scores is: ``auto`` is the softmax of several channels and the sigmoid of one;
#: ``none`` takes probabilities as they are.
Activation = Literal["auto", "softmax", "sigmoid", "none"]


class Maps(NamedTuple):
    """Probabilities and labels ``(B, C, ...)``; p, 1 - p and labels 0 where they do not count."""

    p: Tensor
    rest: Tensor  # 1 - p, exact where p rounds to 1
    t: Tensor
    log_p: Tensor
    log_rest: Tensor
    counts: Tensor  # (B, 1, ...) bool; (B, C, ...) for sigmoids with a label each

    def foreground(self) -> Maps:
        """Without class 0 of several."""
        if self.p.shape[1] == 1:
            return self
        p, rest, t, log_p, log_rest = (m[:, 1:] for m in self[:-1])
        counts = self.counts if self.counts.shape[1] == 1 else self.counts[:, 1:]
        return Maps(p, rest, t, log_p, log_rest, counts)


def check_activation(activation: str) -> None:
    """Raise ValueError for another word."""
    if activation not in get_args(Activation):
        raise ValueError(
            f"activation must be one of {', '.join(get_args(Activation))}, got {activation!r}."
        )


def head_of(activation: Activation) -> HeadKind:
    """What a contract says of such maps."""
    return "softmax" if activation == "auto" else activation


def read_maps(
    logit_map: Tensor,
    label_map: Tensor,
    valid: Tensor | None = None,
    ignore_index: int = -100,
    activation: Activation = "auto",
    hard: bool = False,
    name: str = "label_map",
) -> Maps:
    """Scores as probabilities and labels as numbers; rows ``(N,)``, ``(N, C)`` will do.

    Args:
        logit_map: ``(B, C, ...)`` scores, or probabilities if ``activation`` is none.
        label_map: ``(B, ...)`` or ``(B, 1, ...)`` class indices, for one channel in [0, 1]; or
            ``(B, C, ...)``, a number in [0, 1] for each channel: soft labels of a softmax, or
            several labels a pixel of sigmoids.
        valid: images ``(B,)`` or pixels that count.
        ignore_index: pixels of this label do not count; of labels by channel, those entries.
        activation: see `Activation`.
        hard: refuse labels between 0 and 1.
        name: what the user calls the labels.

    Raises:
        ValueError: shapes that do not go together, labels of a wrong dtype; on a CPU labels and
            probabilities out of range.
    """
    if not logit_map.ndim:
        raise ValueError("logit_map must be (B, C, ...), classes second, got one number ().")
    z = logit_map[:, None] if logit_map.ndim == 1 else logit_map
    classes = z.shape[1]
    if activation == "auto":
        activation = "sigmoid" if classes == 1 else "softmax"
    labels = as_channels(label_map, z, name)
    by_channel = labels.shape[1] == classes
    if not by_channel:
        check_class_map(labels, classes, name)
    if not labels.is_floating_point():
        labels = labels.long()  # a uint8 would take -100 for 156
    counts = labels != ignore_index
    if activation != "sigmoid":  # one class that does not count takes the pixel along
        counts = counts.all(1, keepdim=True)
    counts = counts & pixels(valid, counts)
    labels = torch.where(counts, labels, 0)
    if by_channel:
        check_binary(labels, name, hard=hard)
        t = labels.to(z.dtype)
    else:
        check_class_range(labels, classes, name)
        t = torch.where(counts, torch.zeros_like(z).scatter(1, labels, 1.0), 0.0)
    z = torch.where(counts, z, 0.0)  # the gradient of a softmax of inf is NaN
    if activation == "none":
        p, rest = z, 1 - z
        log_p, log_rest = _logs(z)
    elif activation == "sigmoid":
        z = z.clamp(min=LOWEST)
        p, rest, log_p, log_rest = z.sigmoid(), (-z).sigmoid(), F.logsigmoid(z), F.logsigmoid(-z)
    else:
        log_p, log_rest = log_p_and_rest(z, 1)
        p, rest = log_p.exp(), log_rest.exp()
    p, rest = (torch.where(counts, x, 0.0) for x in (p, rest))
    return Maps(p, rest, t, log_p, log_rest, counts)


def as_channels(label_map: Tensor, logit_map: Tensor, name: str) -> Tensor:
    """Labels ``(B, 1, ...)`` of classes or ``(B, C, ...)`` by channel. ValueError for neither."""
    b, c, *space = logit_map.shape
    shape = tuple(label_map.shape)
    if shape == (b, *space):
        return label_map[:, None]
    if shape in ((b, 1, *space), (b, c, *space)):
        return label_map
    raise ValueError(
        f"{name} must be {(b, *space)} beside logit_map {(b, c, *space)} (classes second), or "
        f"{(b, c, *space)} for a label of each channel; got {shape}."
    )


def _logs(p: Tensor) -> tuple[Tensor, Tensor]:
    """``log p`` and ``log(1 - p)`` of probabilities; ValueError if they are none, on a CPU."""
    if p.numel() and may_ask(p):
        low, high = (x.item() for x in p.detach().aminmax())
        if low < 0 or high > 1:
            raise ValueError(
                f"logit_map must be probabilities in [0, 1] where activation is none, found {low} "
                f"to {high}: write activation: auto for scores."
            )
    tiny = torch.finfo(p.dtype).tiny
    return p.clamp(min=tiny).log(), torch.log1p(-p.clamp(max=1 - torch.finfo(p.dtype).eps))


def pixels(valid: Tensor | None, counts: Tensor) -> Tensor:
    """``valid`` of images or of pixels, as a mask that goes with ``(B, 1, ...)``."""
    if valid is None:
        return torch.ones_like(counts[:, :1])
    every = counts[:, :1]
    if valid.numel() == every.numel():
        return valid.reshape(every.shape)
    if valid.numel() == len(counts):
        return valid.reshape(-1, *[1] * (counts.ndim - 1)).expand_as(every)
    raise ValueError(
        f"mask and target say which of {valid.numel()} rows count; maps {tuple(counts.shape)} "
        "have neither as many images nor as many pixels."
    )


def sum_space(x: Tensor) -> Tensor:
    """Sum over pixels: ``(B, C, ...)`` to ``(B, C)``."""
    return x.sum(tuple(range(2, x.ndim))) if x.ndim > 2 else x
