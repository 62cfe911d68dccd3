# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What a call of torch's attention functions attends with: queries, keys and mask, of a sample."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.distributed import is_on_mesh
from lightning_losses.metrics.entropy.attention import (
    AttentionEntropy,
    attention_entropy,
    attention_entropy_of_logits,
)

#: Sequences of a batch that are looked at; more queries of few cost less than few of many.
SEQUENCES = 4

#: (args, kwargs, rows) -> measurement, or None if this call is no attention.
Reader = Callable[[Any, Mapping[str, Any], int], AttentionEntropy | None]

_MULTI_HEAD = inspect.signature(F.multi_head_attention_forward)


class NotSeen(Exception):
    """This call cannot be measured; the message says why."""


def of_dot_product(args: Any, kwargs: Mapping[str, Any], rows: int) -> AttentionEntropy:
    """Of a call of ``F.scaled_dot_product_attention``."""

    def read(
        query: Tensor,
        key: Tensor,
        value: Tensor | None = None,
        attn_mask: Tensor | None = None,
        dropout_p: float = 0.0,
        is_causal: bool = False,
        scale: float | None = None,
        enable_gqa: bool = False,
    ) -> AttentionEntropy:
        if not 2 <= query.ndim <= 4:
            raise NotSeen(f"queries of shape {tuple(query.shape)} are not (B, H, Q, D)")
        query, key = _local(query, key)
        mask = attn_mask
        if mask is not None:
            _require_plain(mask)
        while query.ndim < 4:  # (B, Q, D) has one head
            query, key = query.unsqueeze(-3), key.unsqueeze(-3)
            mask = mask.unsqueeze(-3) if mask is not None and mask.ndim > 1 else mask
        step = _step(len(query))
        if mask is not None:
            mask = mask.detach()
            mask = mask[::step] if mask.ndim == 4 and len(mask) > 1 else mask
        q, k = query.detach()[::step], key.detach()[::step]
        return _measure(q, k, mask, rows, key.shape[2], is_causal, scale)

    return read(*args, **kwargs)


def of_softmax(args: Any, kwargs: Mapping[str, Any], rows: int) -> AttentionEntropy | None:
    """Of a softmax over the last dimension of ``(B, H, Q, K)``: attention in somebody's own words.

    None for any other softmax.
    """
    names = ("input", "dim")
    given = dict(zip(names, args, strict=False)) | dict(kwargs)
    logits, dim = given.get("input"), given.get("dim")
    if not isinstance(logits, Tensor) or logits.ndim != 4 or dim not in (-1, 3):
        return None
    (logits,) = _local(logits)
    few = logits.detach()[:: _step(len(logits))]
    counts = None
    if few.shape[2] == few.shape[3] and few.numel():
        # Queries and keys are the same tokens, so a key that nobody may see is padding.
        chosen = _spread(few, rows)
        counts = ~(few.amax((1, 2)) <= torch.finfo(few.dtype).min / 2)[:, chosen]
    return attention_entropy_of_logits(few[:, :, _spread(few, rows)], counts)


def of_multi_head(args: Any, kwargs: Mapping[str, Any], rows: int) -> AttentionEntropy:
    """Of a call of ``F.multi_head_attention_forward``, which `nn.MultiheadAttention` makes."""
    bound = _MULTI_HEAD.bind(*args, **kwargs)
    bound.apply_defaults()
    given = bound.arguments
    query, key = given["query"], given["key"]
    _require_plain(query, key)
    mask, padding = given["attn_mask"], given["key_padding_mask"]
    if query.ndim == 2:  # unbatched
        query, key = query.unsqueeze(1), key.unsqueeze(1)
        padding = None if padding is None else padding.unsqueeze(0)
    heads, batch, width = given["num_heads"], query.shape[1], query.shape[2]
    step = _step(batch)
    if given["use_separate_proj_weight"]:
        weights = given["q_proj_weight"], given["k_proj_weight"]
    else:
        weights = given["in_proj_weight"].split(width)[:2]
    bias = given["in_proj_bias"]
    biases = (None, None) if bias is None else bias.split(width)[:2]
    with torch.no_grad(), torch.autocast(query.device.type, enabled=False):

        def by_head(x: Tensor) -> Tensor:  # (L, B, E) -> (B, H, L, D)
            return x.reshape(len(x), x.shape[1], heads, -1).permute(1, 2, 0, 3)

        q, k = (
            by_head(F.linear(_float(x[:, ::step]), _float(w), None if b is None else _float(b)))
            for x, w, b in zip((query, key), weights, biases, strict=True)
        )
        if given["static_k"] is not None:
            static = given["static_k"]
            k = _float(static.reshape(batch, heads, *static.shape[1:])[::step])
        if given["bias_k"] is not None:
            k = torch.cat([k, by_head(_float(given["bias_k"])).expand(len(k), -1, -1, -1)], 2)
        if given["add_zero_attn"]:
            k = torch.cat([k, k.new_zeros(len(k), heads, 1, k.shape[3])], 2)
        if mask is not None:
            if mask.ndim == 3:  # (B H, Q, K)
                mask = mask.reshape(batch, heads, *mask.shape[1:])[::step]
            mask = _allowed(mask, k.shape[2])
        if padding is not None:
            padding = _allowed(padding[::step, None, None], k.shape[2])
            mask = padding if mask is None else _both(mask, padding)
        return _measure(q, k, mask, rows, own_keys=len(key))


#: Function that a mode sees -> what it attends with.
READERS: dict[Any, Reader] = {
    F.scaled_dot_product_attention: of_dot_product,
    F.multi_head_attention_forward: of_multi_head,
    F.softmax: of_softmax,
    torch.softmax: of_softmax,
    Tensor.softmax: of_softmax,
}

#: Their eval mode has a fused path that a function mode, merely by being active, would switch off.
FUSED = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerEncoder)


def _measure(
    q: Tensor,
    k: Tensor,
    mask: Tensor | None,
    rows: int,
    own_keys: int,  # without those that a module adds at the end
    causal: bool = False,
    scale: float | None = None,
) -> AttentionEntropy:
    counts = None
    if mask is not None:
        mask = mask.reshape((1,) * (4 - mask.ndim) + mask.shape)
        if q.shape[2] == own_keys and mask.shape[3] == k.shape[2]:
            counts = _not_padding(mask, len(q), own_keys)
    return attention_entropy(
        q, k, causal=causal, mask=mask, query_mask=counts, scale=scale, queries=_spread(q, rows)
    )


def _not_padding(mask: Tensor, batch: int, tokens: int) -> Tensor:
    """Queries and keys are the same tokens, so a key that nobody may see is padding: (B, Q)."""
    allowed = mask if mask.dtype == torch.bool else mask > torch.finfo(mask.dtype).min / 2
    return allowed.any(2).any(1)[:, :tokens].expand(batch, tokens)


def _allowed(mask: Tensor, keys: int) -> Tensor:
    """A mask of `nn.MultiheadAttention`, where True is "not seen", as torch's attention has it.

    Keys that the module adds at the end are seen by all.
    """
    mask = ~mask if mask.dtype == torch.bool else mask
    return F.pad(mask, (0, keys - mask.shape[-1]), value=float(mask.dtype == torch.bool))


def _both(a: Tensor, b: Tensor) -> Tensor:
    if a.dtype == b.dtype == torch.bool:
        return a & b
    return _numbers(a) + _numbers(b)


def _numbers(mask: Tensor) -> Tensor:
    if mask.dtype != torch.bool:
        return _float(mask)
    return torch.zeros(mask.shape, device=mask.device).masked_fill(~mask, -torch.inf)


def _step(batch: int) -> int:
    """The stride over sequences that leaves at most `SEQUENCES`."""
    return max(1, -(-batch // SEQUENCES))


def _spread(q: Tensor, rows: int) -> Tensor:
    """Evenly spaced queries, the last among them: no random numbers, the same every time."""
    length = q.shape[2]
    step = max(1, -(-length * len(q) // rows))
    return torch.arange((length - 1) % step if length else 0, length, step, device=q.device)


def _local(*tensors: Tensor) -> tuple[Tensor, ...]:
    """This rank's heads and sequences of DTensors ``(B, H, ...)``; plain tensors as they are."""
    if all(is_on_mesh(tensor) for tensor in tensors):
        placements = tensors[0].placements  # type: ignore[attr-defined]
        whole = all(p.is_replicate() or p.is_shard(0) or p.is_shard(1) for p in placements)
        alike = all(t.placements == placements for t in tensors)  # type: ignore[attr-defined]
        if tensors[0].ndim != 4 or not whole or not alike:
            raise NotSeen(
                "it is a DTensor that is split by other than sequences and heads, or queries and "
                "keys are split differently"
            )
        tensors = tuple(t.to_local() for t in tensors)  # type: ignore[attr-defined]
    _require_plain(*tensors)
    return tensors


def _require_plain(*tensors: Tensor) -> None:
    for tensor in tensors:
        if (
            type(tensor) not in (Tensor, nn.Parameter)
            or tensor.is_nested
            or torch._C._functorch.is_functorch_wrapped_tensor(tensor)
        ):
            raise NotSeen(
                f"{type(tensor).__name__} that is nested, sharded, a mask object or within a "
                "torch.func transform cannot be sampled"
            )


def _float(tensor: Tensor) -> Tensor:
    return tensor.detach().to(torch.promote_types(tensor.dtype, torch.float32))
