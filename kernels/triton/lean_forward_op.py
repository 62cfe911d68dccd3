# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Launches mode lean's forward kernels, as one op that `torch.compile` sees whole."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ..partial import MEANS
from ..problem import MAX_AND_SUM, STATISTICS
from . import tiles
from .common import as_bytes, flat, launch, options
from .lean_forward_kernels import merge_spans, span_statistics, target_logits
from .lean_tile import aligned, operands, pointers

#: Rows a program of the two small kernels.
MERGE_ROWS = 128
TARGET_ROWS, TARGET_DEPTH = 16, 128
#: Statistics that `merge_spans` makes: class weights would cost registers that there are not.
MERGED = tuple(name for name in (*MAX_AND_SUM, *STATISTICS) if name != "weighted_log_prob")


@torch.library.custom_op("lightning_losses::lean_statistics", mutates_args=())
def lean_statistics(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    temperature: Tensor | None,
    target: Tensor | None,
    valid: Tensor | None,
    num_valid: Tensor | None,
    scale: float,
    softcap: float | None,
    names: str,
) -> list[Tensor]:
    """Statistics ``(N,)`` of hidden ``(N, D)`` times head ``(V, D)``, one for each of `names`."""
    out = _empty(hidden, names)
    if hidden.shape[0] == 0:
        return out
    result: dict[str, Tensor] = dict(zip(names.split(), out, strict=True))
    parts, z_target, span = spans(
        hidden, head, bias, temperature, target, valid, num_valid, scale, softcap, frozenset(result)
    )
    n = hidden.shape[0]
    assert parts["m_ptr"] is not None
    launch(
        merge_spans,
        (triton.cdiv(n, MERGE_ROWS),),
        hidden.device,
        **parts,
        z_target_ptr=z_target,
        valid_ptr=as_bytes(valid),
        **{f"{name}_ptr": result.get(name) for name in MERGED},
        N=n,
        V=head.shape[0],
        span=span,
        spans=parts["m_ptr"].shape[0],
        ROWS=MERGE_ROWS,
    )
    return out


def spans(
    hidden: Tensor,
    head: Tensor,
    bias: Tensor | None,
    temperature: Tensor | None,
    target: Tensor | None,
    valid: Tensor | None,
    num_valid: Tensor | None,
    scale: float,
    softcap: float | None,
    want: frozenset[str],
) -> tuple[dict[str, Tensor | None], Tensor | None, int]:
    """What `span_statistics` says, ``(spans, N)``; the target's logit ``(N,)``; and how
    many classes a span has (the last has those that are left).
    """
    hidden, head = aligned(hidden), aligned(head)
    n, classes = hidden.shape[0], head.shape[0]
    register_heavy = bias is not None or softcap is not None or temperature is not None
    register_heavy |= bool(want & {*MEANS, "collision", "prediction"})
    arch = tiles.architecture(hidden.device)
    use_tma = tiles.descriptors(arch, hidden, head)
    tile = tiles.forward_tile(arch, register_heavy, hidden.element_size(), use_tma)
    span = tiles.span_classes(n, classes, tile, hidden.device)
    count = -(-classes // span)
    bias, temperature, target, mask = flat(bias), flat(temperature), flat(target), as_bytes(valid)

    def partial(wanted: bool, dtype: torch.dtype = torch.float32) -> Tensor | None:
        return hidden.new_empty((count, n), dtype=dtype) if wanted else None

    parts = {
        "m_ptr": partial(True),
        "s_ptr": partial(True),
        "t_ptr": partial("entropy" in want),
        "q_ptr": partial("collision" in want),
        "total_ptr": partial(not want.isdisjoint(MEANS)),
        "best_ptr": partial("prediction" in want, torch.int32),
    }
    logit_options = {"bias_ptr": bias, "temperature_ptr": temperature, **options(scale, softcap)}
    launch(
        span_statistics,
        (triton.cdiv(n, tile.rows) * count,),
        hidden.device,
        **operands(hidden, head, tile, use_tma),
        **logit_options,
        **parts,
        num_valid_ptr=num_valid,
        N=n,
        V=classes,
        span=span,
        spans=count,
        GROUP=tiles.GROUP,
        num_warps=tile.warps,
        num_stages=tile.stages,
    )
    z_target = None
    if "log_prob" in want:
        z_target = hidden.new_empty(n, dtype=torch.float32)
        launch(
            target_logits,
            (triton.cdiv(n, TARGET_ROWS),),
            hidden.device,
            **pointers(hidden, head),
            **logit_options,
            target_ptr=target,
            valid_ptr=mask,
            out_ptr=z_target,
            N=n,
            D=hidden.shape[1],
            ROWS=TARGET_ROWS,
            BD=TARGET_DEPTH,
        )
    return parts, z_target, span


@lean_statistics.register_fake
def _(hidden: Tensor, *rest: Any) -> list[Tensor]:
    return _empty(hidden, names=rest[-1])


def _empty(hidden: Tensor, names: str) -> list[Tensor]:
    return [
        hidden.new_empty(
            hidden.shape[0], dtype=torch.int64 if name == "prediction" else torch.float32
        )
        for name in names.split()
    ]
