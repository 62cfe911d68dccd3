# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What losses refuse before they compute: labels that are none, shapes that would broadcast."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.softmax import may_ask


def check_binary(target: Tensor, name: str = "target", hard: bool = False) -> None:
    """Raise ValueError for yes-or-no labels outside [0, 1], on a CPU; NaN is left to the objective.

    Args:
        target: any shape, 0 where it does not count.
        name: what the user called it.
        hard: refuse what is between 0 and 1 too.
    """
    if not target.numel() or target.dtype == torch.bool or not may_ask(target):
        return
    low, high = (x.item() for x in target.detach().aminmax())
    if low < 0 or high > 1:
        raise ValueError(
            f"{name} must be in [0, 1] where a label is yes or no, found {low} to {high}: write "
            f"{name} // 255 for 0 and 255, ({name} + 1) / 2 for -1 and 1; where a number marks "
            "what does not count, write ignore_index=NUMBER."
        )
    if hard and target.is_floating_point() and bool(((target > 0) & (target < 1)).any()):
        raise ValueError(
            f"{name} must be 0 or 1 here, found numbers between them: with soft labels this loss "
            f"is not least where the prediction equals the label. Write {name}.round(), or take "
            "bce, dice_ce or tversky, which are."
        )


def check_class_map(labels: Tensor, classes: int, name: str) -> None:
    """Raise ValueError for a map of class indices whose dtype cannot name them.

    A mask as ``ToTensor`` makes it holds class / 255, of which nothing but class 0 would be left.
    """
    if labels.is_floating_point() or labels.is_complex():
        raise ValueError(
            f"{name} must hold class indices (int64) beside {classes} channels of scores, got "
            f"{labels.dtype}: write {name}.long() if it holds 0.0, 1.0, 2.0, ...; a mask that "
            "ToTensor scaled to [0, 1] has lost them: read it with PILToTensor."
        )
    if labels.dtype == torch.bool and classes != 2:
        raise ValueError(
            f"{name} is bool, which names 2 classes and not {classes}: pass class indices "
            "(int64), or one channel of scores."
        )


def check_class_range(labels: Tensor, classes: int, name: str) -> None:
    """Raise ValueError for a map of class indices out of range, on a CPU."""
    if not labels.numel() or not may_ask(labels):
        return
    low, high = (int(x) for x in labels.aminmax())
    if low < 0 or high >= classes:
        wrong = low if low < 0 else high
        raise ValueError(
            f"{name} must be in [0, {classes}) for {classes} channels of scores, found {wrong}: "
            f"if {wrong} marks pixels that do not count, write ignore_index={wrong} for this loss "
            f"(loss.NAME.ignore_index={wrong})."
        )


def check_classes(target: Tensor, classes: int) -> None:
    """Raise ValueError for class indices ``(N,)`` out of range, on a CPU."""
    if not target.numel() or not may_ask(target):
        return
    low, high = (int(x) for x in target.aminmax())
    if low < 0 or high >= classes:
        raise ValueError(
            f"target must be in [0, {classes}) for {classes} columns of logits, found "
            f"{low if low < 0 else high}: write target - 1 for labels that begin at 1, "
            "ignore_index=NUMBER for rows that do not count."
        )


def check_length(name: str, found: int, needed: int, what: str = "classes") -> None:
    """Raise ValueError unless there is one number for each of what is needed."""
    if found != needed:
        raise ValueError(
            f"{name} must be one number for each of {needed} {what}, got {found}: write {needed}."
        )


def same_rows(**named: Tensor | None) -> None:
    """Raise ValueError unless all that are there have as many rows; one would broadcast."""
    given = {name: tuple(x.shape) for name, x in named.items() if x is not None}
    if len({shape[:1] for shape in given.values()}) > 1:
        found = ", ".join(f"{name} {shape}" for name, shape in given.items())
        raise ValueError(
            f"{' and '.join(given)} must have as many rows, got {found}: pass row i of each for "
            "sample i of the batch."
        )
