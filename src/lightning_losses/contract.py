# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Contract`: what a loss says of its inputs, read by the check before it and by every monitor."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

#: What a target may be:
#: ``class`` a column of the logits, int64 ``(N,)``; ``soft`` a weight a column, float ``(N, C)``;
#: ``binary`` yes or no, 0 to 1, shaped as the logits; ``level`` an ordered integer, no column;
#: ``label`` any integer, where only equal or not matters; ``real`` a number; ``map`` an image of
#: class indices; ``none`` the loss reads no target.
TargetKind = Literal["class", "soft", "binary", "level", "label", "real", "map", "none"]

#: What the logits are: ``softmax`` over columns, one ``sigmoid`` a column, or ``none`` of both.
HeadKind = Literal["softmax", "sigmoid", "none"]


@dataclass(frozen=True)
class Contract:
    """What a loss takes. A class attribute, or set in ``__init__`` where settings decide.

    Checked once, before the loss runs, by `evaluation.validation`; a loss checks nothing of it
    again. Monitors and controllers read ``head`` to know what probabilities are.
    """

    target: tuple[TargetKind, ...] = ("class",)
    """Kinds of target that it takes."""
    head: HeadKind = "softmax"
    """What it makes of the logits."""
    same_columns: tuple[tuple[str, ...], ...] = ()
    """Groups of named tensors ``(N, C)`` that must have the same C, such as student and teacher."""
