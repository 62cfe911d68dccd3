# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Binary cross-entropy, for one yes-or-no question a row or for several labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.class_weights import ClassWeights
from lightning_losses.losses.shared.constant import constant, exact
from lightning_losses.losses.shared.rows_math import LOWEST
from lightning_losses.losses.shared.validation import check_binary, check_classes, check_length

OverLabels = Literal["mean", "sum"]


class BinaryCrossEntropy(nn.Module):
    """``-t log s(z) - (1 - t) log(1 - s(z))`` with s the sigmoid, in nats; mean over the labels.

    Args:
        positive_weight: multiplies the first summand, at least 0; above 1 it favours recall. One
            number, or one a label ``(L,)``.
        ignore_index: labels of this value are not known and do not count: a row's value is the sum
            over its known labels divided by L, and the mean over rows divides by how many are
            known, so that it is the mean over known labels. None: every label counts.
        over_labels: a row's value is the ``mean`` of its L labels or their ``sum``.

    Shapes: logits ``(N,)`` with target ``(N,)`` in [0, 1], int or float; or several labels,
    ``(N, L)`` with ``(N, L)``, or with class indices ``(N,)``, each label then a class against the
    rest. Per-row values ``(N,)``.
    """

    scope = "rows"
    contract = Contract(target=("binary", "class"), head="sigmoid")

    def __init__(
        self,
        positive_weight: float | Sequence[float] | Tensor = 1.0,
        ignore_index: int | None = None,
        over_labels: OverLabels = "mean",
    ) -> None:
        super().__init__()
        several = isinstance(positive_weight, Sequence) or (
            isinstance(positive_weight, Tensor) and positive_weight.ndim > 0
        )
        numbers = positive_weight if several else [positive_weight]
        self.positive_weight = ClassWeights(numbers, "positive_weight").values  # type: ignore[arg-type]
        check_over_labels(over_labels)
        self.ignore_index, self.over_labels = ignore_index, over_labels

    def forward(self, logits: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(N,)``. Raises ValueError for targets outside [0, 1], on a CPU."""
        rows = binary_rows(logits, target, valid, self.ignore_index)
        weight: Tensor | float = self.positive_weight[0]
        if len(self.positive_weight) > 1:
            labels = rows.z.shape[1]
            check_length("positive_weight", len(self.positive_weight), labels, "labels")
            weight = constant(self.positive_weight, rows.z)
        return rows.reduced(rows.losses(weight), self.over_labels)

    def row_divisors(self, target: Tensor | None) -> Tensor | None:
        """The share of each row's labels that is known; the mean over rows divides by it."""
        return known_share(target, self.ignore_index)


class BinaryRows(NamedTuple):
    """Scores and labels ``(N, L)`` of one dtype, and which labels are known (None: all)."""

    z: Tensor
    t: Tensor
    known: Tensor | None

    def losses(self, positive_weight: Tensor | float = 1.0) -> Tensor:
        """Binary cross-entropy of each label ``(N, L)``, in nats."""
        # By logsigmoid: log(1 + e^z) - t z would cancel where the label is certain.
        yes, no = F.logsigmoid(self.z), F.logsigmoid(-self.z)
        return -positive_weight * self.t * yes - (1 - self.t) * no

    def reduced(self, losses: Tensor, over_labels: OverLabels) -> Tensor:
        """One value a row ``(N,)``; labels that are not known add nothing."""
        if self.known is not None:
            losses = torch.where(self.known, losses, 0.0)
        return losses.sum(1) if over_labels == "sum" else losses.mean(1)


def check_over_labels(over_labels: str) -> None:
    """Raise ValueError for another word."""
    if over_labels not in get_args(OverLabels):
        raise ValueError(f"over_labels must be 'mean' or 'sum', got {over_labels!r}.")


def known_share(target: Tensor | None, ignore_index: int | None) -> Tensor | None:
    """``(N,)`` share of a row's labels that are known; None where all are."""
    if target is None or ignore_index is None:
        return None
    known = (target != ignore_index).to(exact(target.device))
    return known if known.ndim == 1 else known.mean(1)


def binary_rows(
    logits: Tensor,
    target: Tensor,
    valid: Tensor | None = None,
    ignore_index: int | None = None,
) -> BinaryRows:
    """Scores and labels side by side; L = 1 for binary logits ``(N,)``.

    Targets of rows that do not count, and labels that are not known, are 0.

    Raises:
        ValueError: shapes that do not go together; targets outside [0, 1], on a CPU.
    """
    z = logits[:, None] if logits.ndim == 1 else logits
    if valid is not None:
        target = torch.where(valid if target.ndim == 1 else valid[:, None], target, 0)
    known = None
    if ignore_index is not None:
        known = target != ignore_index
        target = torch.where(known, target, 0)
        known = known[:, None] if known.ndim == 1 else known
    if target.ndim == 1 and z.shape[1] == 1:
        target = target[:, None]
    elif target.ndim == 1 and not target.is_floating_point():
        check_classes(target, z.shape[1])
        # By scatter, which refuses an index out of range; a comparison would pass over it.
        target = torch.zeros_like(z).scatter(1, target.long()[:, None], 1.0)
    if target.shape != z.shape:
        raise ValueError(
            f"A binary loss got logits {tuple(logits.shape)} and {target.dtype} target "
            f"{tuple(target.shape)}: pass logits (N,) with target (N,), or (N, L) with (N, L)."
        )
    check_binary(target)
    return BinaryRows(z.clamp(min=LOWEST), target.to(z.dtype), known)  # 0 times -inf is NaN
