# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Entropy-guided attention: each head is pulled towards an entropy of its own, which it learns."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient


class EntropyGuidedAttention(nn.Module):
    """Squared distance of each attention row's entropy from ``threshold log K``, beyond a margin.

    Jha and Reagen, "Entropy-Guided Attention for Private LLMs", arXiv 2501.03489, against heads
    that look nowhere in particular (entropy near log K) and heads that look at one key (near 0).
    Distances of at most ``tolerance log K`` cost nothing; beyond, the whole distance counts, so
    the loss jumps there. Thresholds are trained, one a layer and head (the authors' example takes
    those of the first layer for all layers).

    As the source, rows are summed over batch and queries, and averaged over heads and layers: the
    value grows with the batch, and the term's weight, 1e-5 there, is meant for that. With
    ``reduction=mean`` it is also averaged over rows: a weight of about 1e-5 B Q does the same.

    Rows that do not count are those of samples that the objective's mask leaves out; where it has
    one row a token, those of queries (tokens) that it leaves out; and rows without any probability.

    Args:
        layers: L.
        heads: H.
        threshold: where the thresholds start, as a fraction of log K.
        tolerance: half the width of the band without penalty, as a fraction of log K.
        reduction: over batch and queries: ``sum`` or ``mean``.

    Shapes: attention, a sequence of L tensors ``(B, H, Q, K)`` or one tensor if L is 1:
    probabilities, as they come from the softmax; one number.

    Raises:
        ValueError: L or H below 1, negative tolerance, unknown reduction.

    Examples:
        >>> penalty = EntropyGuidedAttention(layers=1, heads=1, threshold=0.5, tolerance=0.2)
        >>> nowhere = torch.full((1, 1, 1, 4), 0.25)  # entropy log 4
        >>> round(penalty(nowhere).item(), 4)  # (log(4) / 2)^2
        0.4805
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(
        self,
        layers: int,
        heads: int,
        threshold: float = 0.5,
        tolerance: float = 0.2,
        reduction: Literal["sum", "mean"] = "sum",
    ) -> None:
        super().__init__()
        if layers < 1 or heads < 1 or tolerance < 0:
            raise ValueError(
                f"layers and heads must be at least 1 and tolerance at least 0, got {layers}, "
                f"{heads} and {tolerance}."
            )
        if reduction not in ("sum", "mean"):
            raise ValueError(f"reduction must be 'sum' or 'mean', got {reduction!r}.")
        self.thresholds = nn.Parameter(torch.full((layers, heads), float(threshold)))
        self.tolerance, self.reduction = tolerance, reduction

    def forward(self, attention: Tensor | Sequence[Tensor], valid: Tensor | None = None) -> Tensor:
        """The penalty, 0-dim. Raises ValueError if the shapes are not those of the thresholds."""
        given = [attention] if isinstance(attention, Tensor) else attention
        if not isinstance(given, Sequence) or not all(isinstance(x, Tensor) for x in given):
            raise TypeError(
                f"attention must be a tensor a layer, in a list, got {type(attention).__name__}: "
                "pass [layer.attention for layer in model.layers]."
            )
        layers = list(given)
        count, heads = self.thresholds.shape
        shapes = [tuple(layer.shape) for layer in layers]
        if len(layers) != count or any(len(s) != 4 or s[1] != heads for s in shapes):
            raise ValueError(
                f"attention must be {count} tensors (B, {heads}, Q, K), got {shapes}: set layers "
                "and heads of entropy_guided_attention to those of the model, and pass a list."
            )
        parts = [
            self._layer(layer, threshold, valid)
            for layer, threshold in zip(layers, self.thresholds, strict=True)
        ]
        total = reduce_with_gradient(torch.stack([value for value, _ in parts]))  # (L,)
        if self.reduction == "mean":
            total = total / all_sum(torch.stack([rows for _, rows in parts])).clamp(min=1)
        return total.mean()

    def _layer(
        self, attention: Tensor, threshold: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """Sum over batch and queries, mean over heads; and how many rows a head has."""
        dtype = torch.promote_types(attention.dtype, torch.float32)
        counts = _counts(valid, attention)
        # Before anything is computed of them: what does not count may be NaN.
        p = torch.where(counts[..., None], attention, 0).to(dtype)
        counts = counts & (p.sum(3) > 0)
        log_p = p.clamp(min=torch.finfo(torch.float32).tiny).log()
        entropy = -(p * log_p).sum(3)  # (B, H, Q)
        most = math.log(max(attention.shape[3], 1))
        distance = entropy - threshold.to(dtype)[:, None] * most
        far = counts & (distance.abs() > self.tolerance * most)
        # Both by where, so that a row within the band sends no gradient.
        penalty = torch.where(far, distance, 0).square()
        heads = attention.shape[1]
        return penalty.sum() / heads, counts.sum().to(dtype) / heads


def _counts(valid: Tensor | None, attention: Tensor) -> Tensor:
    """Rows ``(B, H, Q)`` that count, from the objective's rows, which are samples or tokens."""
    batch, heads, queries, _ = attention.shape
    if valid is None:
        return torch.ones(batch, heads, queries, dtype=torch.bool, device=attention.device)
    if len(valid) == batch:
        rows = valid[:, None, None]
    elif len(valid) == batch * queries:
        rows = valid.reshape(batch, 1, queries)
    else:
        raise ValueError(
            f"The objective has {len(valid)} rows, which are neither the {batch} samples of "
            f"attention {tuple(attention.shape)} nor its {batch} x {queries} tokens: leave out "
            "mask and ignored targets, or pass the attention of the same tokens."
        )
    return rows.expand(batch, heads, queries)
