# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mode lean's backward pass over slabs of classes, as one op that `torch.compile` sees whole."""

from __future__ import annotations

from typing import Any

import torch
import triton
from torch import Tensor

from ..eager.gradients import add_product
from . import tiles
from .common import as_bytes, flat, launch, options
from .lean_backward_kernels import slab_gradient
from .lean_tile import aligned, operands


@torch.library.custom_op("lightning_losses::lean_gradient", mutates_args=())
def lean_gradient(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    temperature: Tensor | None,
    target: Tensor | None,
    valid: Tensor | None,
    num_valid: Tensor | None,
    max_logit: Tensor,
    prediction: Tensor | None,
    a: Tensor | None,
    b: Tensor | None,
    c: Tensor | None,
    d: Tensor | None,
    e: Tensor | None,
    f: Tensor | None,
    scale: float,
    softcap: float | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> list[Tensor]:
    """Gradients of hidden, head weight and bias; empty where not needed."""
    out = _empty_gradients(hidden, weight, bias, need_hidden, need_weight, need_bias)
    n, classes = hidden.shape[0], weight.shape[0]
    head = weight.to(hidden.dtype)
    has_logit_options = bias is not None or softcap is not None or temperature is not None
    has_logit_options |= scale != 1.0
    # What is the same for every slab.
    arguments = _products(hidden, head, has_logit_options) | {
        "bias_ptr": flat(bias),
        "temperature_ptr": flat(temperature),
        "target_ptr": flat(target),
        "valid_ptr": as_bytes(valid),
        "num_valid_ptr": num_valid,
        "max_logit_ptr": flat(max_logit),
        "prediction_ptr": flat(prediction),
        "a_ptr": flat(a),
        "b_ptr": flat(b),
        "c_ptr": flat(c),
        "d_ptr": flat(d),
        "e_ptr": flat(e),
        "f_ptr": flat(f),
        **options(scale, softcap),
    }
    size = min(tiles.slab_classes(n, classes, hidden.element_size()), classes)
    slab = hidden.new_empty(n, -(-size // 16) * 16)  # rows on 32 bytes
    total: Tensor | None = None
    with torch.autocast(hidden.device.type, enabled=False):  # it is on inside an op's body
        for first in range(0, classes, size):
            stop = min(first + size, classes)
            dz = slab[:, : stop - first]
            _slab_gradient(dz, first, arguments)
            if need_hidden:
                total = add_product(total, dz, head[first:stop], torch.float32)
            if need_weight and weight.dtype == hidden.dtype:
                torch.mm(dz.t(), hidden, out=out[1][first:stop])
            elif need_weight:
                out[1][first:stop] = add_product(None, dz.t(), hidden, torch.float32)
            if need_bias:
                out[2][first:stop] = dz.sum(0, dtype=torch.float32)
    if total is not None:
        out[0].copy_(total)
    return out


@lean_gradient.register_fake
def _(hidden: Tensor, weight: Tensor, bias: Tensor | None, *rest: Any) -> list[Tensor]:
    return _empty_gradients(hidden, weight, bias, *rest[-3:])


def _empty_gradients(
    hidden: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    need_hidden: bool,
    need_weight: bool,
    need_bias: bool,
) -> list[Tensor]:
    pairs = ((hidden, need_hidden), (weight, need_weight), (bias, need_bias))
    return [
        hidden.new_empty(0) if x is None or not need else x.new_empty(x.shape) for x, need in pairs
    ]


def _products(hidden: Tensor, head: Tensor, has_logit_options: bool) -> dict[str, Any]:
    """Both operands, and the tile that multiplies them."""
    hidden, head = aligned(hidden), aligned(head)
    arch = tiles.architecture(hidden.device)
    use_tma = tiles.descriptors(arch, hidden, head)
    tile = tiles.backward_tile(arch, has_logit_options, hidden.element_size(), use_tma)
    return operands(hidden, head, tile, use_tma) | {
        "V": head.shape[0],
        "GROUP": tiles.GROUP,
        "num_warps": tile.warps,
        "num_stages": tile.stages,
    }


def _slab_gradient(out: Tensor, first: int, arguments: dict[str, Any]) -> None:
    """dlogits of the classes from `first` on into ``out (N, classes of this slab)``."""
    n, width = out.shape
    if n == 0:
        return
    launch(
        slab_gradient,
        (triton.cdiv(n, arguments["BM"]) * triton.cdiv(width, arguments["BV"]),),
        out.device,
        **arguments,
        out_ptr=out,
        out_stride=out.stride(0),
        N=n,
        first=first,
        width=width,
    )
