# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`Contract`: what a loss says of its inputs, read by the check before it and by every monitor.

What a loss says of its *call* it leaves in an attribute ``diagnostics``, a dict of tensors::

    self.diagnostics = {"clip_fraction": (ratio > 1 + self.clip).float()}

written anew in ``forward``; each is one value a row ``(N,)``, of which the mean over the rows that
count is told, or one number of the batch, which holds for each of its rows. The objective takes
them away as it evaluates, detached, into ``LossRecord.diagnostics`` under ``<term>/<name>``;
`LossMixin` logs ``{stage}/diagnostics/<term>/<name>``. Ranks, and batches of an epoch, are added up
by rows; ``sample_weight`` does not weigh them. On several ranks the names must be the same on each.
"""

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
    by_chunks: bool = False
    """Whether logits and teacher's logits may be made of hidden states, some rows at a time.

    A loss of scope ``rows`` is then called for each chunk, in training twice: it keeps no state and
    leaves no diagnostics. One of scope ``batch`` has a method ``of_chunks(chunks)``, to sum over
    rows as `softmax.Chunks` gives them.
    """
