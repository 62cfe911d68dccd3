# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Launches the row kernels, as ops that `torch.compile` sees whole."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ..problem import MAX_AND_SUM, STATISTICS
from . import row_kernels
from .common import as_bytes, flat, launch, options

#: Logits a program reads at once; at 4096 by 8 warps no target spills.
BLOCK = 4096


def block_size(classes: int, lane: int) -> tuple[int, int]:
    """(logits a program reads at once, warps): small for few classes."""
    block = min(BLOCK, max(triton.next_power_of_2(classes), 4 * lane))
    return block, min(8, max(1, block // 512))


@torch.library.custom_op("lightning_losses::row_statistics", mutates_args=())
def row_statistics(
    z: Tensor,
    bias: Tensor | None,
    temperature: Tensor | None,
    target: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    valid: Tensor | None,
    scale: float,
    softcap: float | None,
    names: str,
    lift: bool,
) -> list[Tensor]:
    """Statistics ``(n,)`` of the rows of z ``(n, V)``, one for each of `names`, in that order.

    `names` begin with `MAX_AND_SUM`; `class_weight` is for weighted_log_prob.
    """
    out = _empty_statistics(z, names)
    n, classes = z.shape
    if n == 0:
        return out
    by_name: dict[str, Tensor] = dict(zip(names.split(), out, strict=True))
    lane = max(1, 16 // z.element_size())
    block, warps = block_size(classes, lane)
    launch(
        row_kernels.row_statistics,
        (n,),
        z.device,
        z_ptr=z,
        z_stride=z.stride(0),
        bias_ptr=flat(bias),
        temperature_ptr=flat(temperature),
        target_ptr=target,
        soft_ptr=soft,
        soft_stride=0 if soft is None else soft.stride(0),
        weight_ptr=flat(class_weight),
        valid_ptr=as_bytes(valid),
        **{f"{name}_ptr": by_name.get(name) for name in (*MAX_AND_SUM, *STATISTICS)},
        V=classes,
        **options(scale, softcap),
        LIFT=lift,
        BLOCK=block,
        LANE=lane,
        num_warps=warps,
    )
    return out


@row_statistics.register_fake
def _(z: Tensor, *rest: Any) -> list[Tensor]:
    *_, names, _lift = rest
    return _empty_statistics(z, names)


def _empty_statistics(z: Tensor, names: str) -> list[Tensor]:
    return [
        z.new_empty(z.shape[0], dtype=torch.int64 if name == "prediction" else torch.float32)
        for name in names.split()
    ]


@torch.library.custom_op("lightning_losses::row_gradient", mutates_args=("out",))
def row_gradient(
    z: Tensor | None,  # None: the logits are in `out`
    out: Tensor,
    bias: Tensor | None,
    temperature: Tensor | None,
    target: Tensor | None,
    soft: Tensor | None,
    class_weight: Tensor | None,
    valid: Tensor | None,
    max_logit: Tensor,
    prediction: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    c: Tensor | None,
    d: Tensor | None,
    e: Tensor | None,
    f: Tensor | None,
    g: Tensor | None,
    scale: float,
    softcap: float | None,
    lift: bool,
) -> None:
    """dlogits ``(n, V)`` into `out`."""
    z = out if z is None else z
    n, classes = z.shape
    if n == 0:
        return
    block, warps = block_size(classes, 8)
    launch(
        row_kernels.row_gradient,
        (n,),
        z.device,
        z_ptr=z,
        z_stride=z.stride(0),
        out_ptr=out,
        out_stride=out.stride(0),
        bias_ptr=flat(bias),
        temperature_ptr=flat(temperature),
        target_ptr=target,
        soft_ptr=soft,
        soft_stride=0 if soft is None else soft.stride(0),
        weight_ptr=flat(class_weight),
        valid_ptr=as_bytes(valid),
        max_logit_ptr=flat(max_logit),
        prediction_ptr=prediction,
        a_ptr=flat(a),
        b_ptr=flat(b),
        c_ptr=flat(c),
        d_ptr=flat(d),
        e_ptr=flat(e),
        f_ptr=flat(f),
        g_ptr=flat(g),
        V=classes,
        **options(scale, softcap),
        LIFT=lift,
        BLOCK=block,
        num_warps=warps,
    )
