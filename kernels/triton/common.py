# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What the Triton kernels share: constants, final logits, and how a launch is set up.

Written for the interpreter too (``TRITON_INTERPRET=1``, float32 and float16 only: it computes
bfloat16 on raw bit patterns without saying so): no libdevice, and every load is upcast at once.
"""

from __future__ import annotations

from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..problem import LOWEST as _LOWEST
from ..problem import NO_CLASS_LEFT as _NO_CLASS_LEFT

LOG2E: tl.constexpr = tl.constexpr(1.4426950408889634)
LOWEST: tl.constexpr = tl.constexpr(_LOWEST)
NO_CLASS_LEFT: tl.constexpr = tl.constexpr(_NO_CLASS_LEFT)
#: Lanes past the last class hold PAD and running maxima start at START: finite, so that no
#: difference of two of them is NaN, and exp of PAD - START is 0.
PAD: tl.constexpr = tl.constexpr(-1e36)
START: tl.constexpr = tl.constexpr(-1e35)
NO_CLASS: tl.constexpr = tl.constexpr(2**31 - 1)


@triton.jit
def cap(z, scale, softcap):  # type: ignore[no-untyped-def]
    """Logits after scale and soft-cap; either None if not wanted."""
    if scale is not None:
        z = z * scale
    if softcap is not None:
        # tanh without libdevice, which the interpreter lacks; absolute error 1e-7 of the cap.
        z = softcap * (2 * tl.sigmoid(z * (2.0 / softcap)) - 1)
    return z


@triton.jit
def lift(z, LIFT: tl.constexpr):  # type: ignore[no-untyped-def]
    """-inf becomes LOWEST. By comparison, because a maximum would turn NaN into a number."""
    if LIFT:
        z = tl.where(z < LOWEST, LOWEST, z)
    return z


@triton.jit
def final_logits(z, scale, softcap, inv_temperature, LIFT: tl.constexpr):  # type: ignore[no-untyped-def]
    """Final logits of raw ones with bias: `cap`, temperature (as 1 / temperature, or None), `lift`.

    `kernels/logits.py` has the same formula in plain torch.
    """
    z = cap(z, scale, softcap)
    if inv_temperature is not None:
        z = z * inv_temperature
    return lift(z, LIFT)


@triton.jit
def nan_without_classes(x, top):  # type: ignore[no-untyped-def]
    """x, NaN in rows whose every class is masked, as `row_math.nan_without_classes` makes them."""
    return tl.where(top < NO_CLASS_LEFT, float("nan"), x)


@triton.jit
def number(ptr, row):  # type: ignore[no-untyped-def]
    """One number of this row, or None."""
    if ptr is None:
        return  # not `return None`, which Triton before 3.8 takes for a tensor
    else:
        return tl.load(ptr + row)


@triton.jit
def inverse(x):  # type: ignore[no-untyped-def]
    """1 / x, or None."""
    if x is None:
        return
    else:
        return 1.0 / x


#: Decided when the kernels are decorated, which is now; compiled code cannot ask the environment.
_INTERPRETED = bool(triton.knobs.runtime.interpret)


def interpreted() -> bool:
    """Whether kernels run under the interpreter, on a CPU."""
    return _INTERPRETED


def options(problem_scale: float, softcap: float | None) -> dict[str, float | None]:
    """Scale and soft-cap as kernel arguments: None compiles them away."""
    return {"scale": None if problem_scale == 1.0 else problem_scale, "softcap": softcap}


def flat(tensor: Tensor | None) -> Tensor | None:
    """One contiguous number a row; float64 and half precision become float32."""
    if tensor is None:
        return None
    tensor = tensor.reshape(-1)
    return (tensor.float() if tensor.is_floating_point() else tensor).contiguous()


def as_bytes(mask: Tensor | None) -> Tensor | None:
    """A bool mask as uint8, which every Triton loads alike."""
    return None if mask is None else mask.contiguous().view(torch.uint8)


def launch(kernel: Any, grid: tuple[int, ...], device: torch.device, **arguments: Any) -> None:
    """Run a kernel on the tensors' own device, not on whichever is current."""
    # Triton 3.10 is to turn this off; the kernels' instruction counts assume it.
    arguments["enable_fp_fusion"] = True
    if device.type == "cuda":
        with torch.cuda.device(device):
            kernel[grid](**arguments)
    else:
        kernel[grid](**arguments)
