# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Attention entropy per head, what it can be at least, and the largest attention logit."""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_losses.metrics.entropy.attention_bound import (
    entropy_lower_bound,
    spectral_norm_above,
)

#: Attention logits formed at once; 16 MiB in float32.
ENTRIES = 1 << 22


class AttentionEntropy(NamedTuple):
    """Per head ``(H,)``, float32 at least, without graph."""

    entropy: Tensor
    """Mean entropy of the rows that count, nats; 0 where no row counts."""
    fraction: Tensor
    """Mean of entropy / log(keys the row may see), over rows with at least two such keys."""
    lower_bound: Tensor
    """Mean of `entropy_lower_bound`, nats; NaN if only logits were given."""
    max_logit: Tensor
    """Largest absolute ``scale q.k`` that is not masked out; inf where one is NaN."""
    rows: Tensor
    """Rows (sequence, query) that count."""
    rows_of_fraction: Tensor
    """Those of them that see at least two keys."""


def attention_entropy(
    q: Tensor,
    k: Tensor,
    *,
    causal: bool = False,
    mask: Tensor | None = None,
    query_mask: Tensor | None = None,
    scale: float | None = None,
    queries: Tensor | None = None,
    entries: int = ENTRIES,
) -> AttentionEntropy:
    """Entropy of ``softmax(scale q k^T + mask)`` per head, without ever holding all of it.

    Zhai et al., "Stabilizing Transformer Training by Preventing Attention Entropy Collapse", arXiv
    2303.06296. A row counts if its query does and it may see at least one key. Half precision is
    computed in float32, whatever autocast says.

    Args:
        q: ``(B, H, Q, D)``.
        k: ``(B, G, K, D)``; G divides H, and head h reads key head ``h // (H / G)``, as
            ``enable_gqa`` of torch's attention has it.
        causal: query i sees keys 0 to i.
        mask: broadcastable to ``(B, H, Q, K)``; bool, True where a key may be seen, or a number
            that is added to the logit. -inf, or below half of the lowest number, is "not seen".
        query_mask: ``(B, Q)`` bool, False for queries that do not count (padding).
        scale: of the logits; ``D ** -0.5`` if None.
        queries: ``(R,)`` int64, positions of the queries to look at; all if None.
        entries: logits formed at once, over all sequences and heads.

    Raises:
        ValueError: if the shapes do not go together.

    Examples:
        >>> found = attention_entropy(torch.zeros(1, 2, 4, 8), torch.zeros(1, 2, 4, 8), causal=True)
        >>> found.entropy  # every key that may be seen alike: the mean of log 1 to log 4
        tensor([0.7945, 0.7945])
        >>> found.fraction
        tensor([1., 1.])
    """
    if q.ndim != 4 or k.ndim != 4 or q.shape[0] != k.shape[0] or q.shape[3] != k.shape[3]:
        raise ValueError(
            f"q must be (B, H, Q, D) and k (B, G, K, D), got {tuple(q.shape)} and {tuple(k.shape)}."
        )
    (b, heads, length, dim), (groups, keys) = q.shape, k.shape[1:3]
    if not groups or heads % groups:
        raise ValueError(f"{heads} query heads do not divide into {groups} key heads.")
    scale = (dim or 1) ** -0.5 if scale is None else scale
    with torch.no_grad(), torch.autocast(q.device.type, enabled=False):
        q, k = _at_least_float32(q), _at_least_float32(k)
        queries = torch.arange(length, device=q.device) if queries is None else queries
        allowed, added = _split(mask)
        sums = _Sums(heads, q)
        width = _logit_width(k, allowed, scale)  # (B, H or G) -> (B, H, 1)
        width = width.repeat_interleave(heads // width.shape[1], 1)[..., None]
        for rows in torch.split(queries, max(1, entries // max(1, b * heads * keys))):
            part = q[:, :, rows]
            # Heads of one group side by side, so that keys are not repeated for each.
            joint = part.reshape(b, groups, heads // groups * len(rows), dim)
            logits = (joint @ k.transpose(2, 3) * scale).reshape(b, heads, len(rows), keys)
            seen = torch.ones(b, 1, len(rows), keys, dtype=torch.bool, device=q.device)
            if causal:
                seen = seen & (torch.arange(keys, device=q.device) <= rows[:, None])
            if allowed is not None:
                seen = seen & _rows(allowed, rows)
            counts = None if query_mask is None else query_mask[:, None, rows]
            bias = None if added is None else _rows(added, rows)
            sums.add(logits, seen, counts, bias, width * part.norm(dim=3))
        return sums.mean(bounded=True)


def attention_entropy_of_logits(
    logits: Tensor, query_mask: Tensor | None = None
) -> AttentionEntropy:
    """The same from attention logits ``(B, H, Q, K)`` with their mask already added.

    ``query_mask`` is ``(B, Q)`` bool, False for queries that do not count (padding).
    ``lower_bound`` is NaN, for it is a statement about queries and keys.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        seen, _ = _split(logits)
        assert seen is not None
        sums = _Sums(logits.shape[1], _at_least_float32(logits[:, :, :0]))
        chunk = max(1, ENTRIES // max(1, logits[:, :, :1].numel()))
        if query_mask is not None:
            seen = seen & query_mask[:, None, :, None]
        for z, s in zip(torch.split(logits, chunk, 2), torch.split(seen, chunk, 2), strict=True):
            sums.add(_at_least_float32(z), s, None, None, None)
        return sums.mean(bounded=False)


class _Sums:
    """Sums over rows, per head."""

    def __init__(self, heads: int, like: Tensor) -> None:
        self.values = like.new_zeros(5, heads)  # entropy, fraction, bound, rows, rows of fraction
        self.max_logit = like.new_zeros(heads)

    def add(
        self,
        logits: Tensor,
        seen: Tensor,
        counts: Tensor | None,
        added: Tensor | None,
        sigma: Tensor | None,
    ) -> None:
        """Rows ``(B, H, R, K)``; ``counts`` is ``(B, 1, R)``, ``sigma`` ``(B, H, R)``."""
        if not logits.numel():
            return
        seen = seen if counts is None else seen & counts[..., None]
        size = torch.where(seen, logits.abs(), 0).amax((0, 2, 3))
        self.max_logit = torch.maximum(self.max_logit, size.nan_to_num(math.inf, math.inf))
        logits = torch.where(seen, logits if added is None else logits + added, -math.inf)
        keys = seen.sum(3).expand(logits.shape[:3]).to(logits.dtype)
        # Against the largest: entropy is a small difference of logits that may be 1e4.
        shifted = logits - torch.where(keys > 0, logits.amax(3), 0)[..., None]
        weight = shifted.exp()
        total = weight.sum(3)
        mean = (weight * torch.where(seen, shifted, 0)).sum(3) / total
        entropy = (total.log() - mean).clamp(min=0)
        good = (keys > 0) & entropy.isfinite()
        several = good & (keys > 1)
        entropy = torch.where(good, entropy, 0)
        fraction = torch.where(several, entropy / keys.clamp(min=2).log(), 0)
        bound = torch.zeros_like(entropy)
        if sigma is not None:
            if added is not None:
                sigma = sigma + torch.where(seen, added, 0).norm(dim=3)
            bound = torch.where(good, entropy_lower_bound(keys.clamp(min=1), sigma), 0)
        rows = torch.stack([entropy, fraction, bound, good.to(bound), several.to(bound)])
        self.values = self.values + rows.sum((1, 3))

    def mean(self, bounded: bool) -> AttentionEntropy:
        entropy, fraction, bound, rows, several = self.values
        if not bounded:
            bound = torch.full_like(bound, math.nan)
        some = rows.clamp(min=1)
        return AttentionEntropy(
            entropy / some, fraction / several.clamp(min=1), bound / some, self.max_logit,
            rows, several,
        )  # fmt: skip


def _logit_width(k: Tensor, allowed: Tensor | None, scale: float) -> Tensor:
    """What times ``|q|`` is at least the norm of a row of centred logits: (B, G) or (B, H).

    Logits of a row may all be shifted, so the keys' mean is taken out.
    """
    if allowed is not None:
        # Keys that no query may see (padding) are no part of any row.
        used = allowed.expand(len(k), *allowed.shape[1:]).any(2).any(1)  # (B, K)
        used = used.expand(len(k), k.shape[2])[:, None, :, None]
        count = used.sum(2, keepdim=True).clamp(min=1)
        k = torch.where(used, k, 0)
        k = torch.where(used, k - k.sum(2, keepdim=True) / count, 0)
    elif k.shape[2]:
        k = k - k.mean(2, keepdim=True)
    return abs(scale) * spectral_norm_above(k)


def _split(mask: Tensor | None) -> tuple[Tensor | None, Tensor | None]:
    """A mask as four-dimensional (allowed, added to logits)."""
    if mask is None:
        return None, None
    mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
    if mask.dtype == torch.bool:
        return mask, None
    # NaN is allowed: then the row is seen to be bad.
    allowed = ~(mask <= torch.finfo(mask.dtype).min / 2)
    return allowed, _at_least_float32(mask)


def _rows(mask: Tensor, rows: Tensor) -> Tensor:
    return mask if mask.shape[2] == 1 else mask[:, :, rows]


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))
