# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Numbers of a loss's configuration as tensors, in full precision and made once a device."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def constant(values: tuple[float, ...], like: Tensor) -> Tensor:
    """``(len(values),)`` in the dtype and on the device of ``like``, without gradient.

    Not a buffer: one of float32 is too coarse for float64 rows, one of float64 cannot live on every
    device, and half-precision training would round either.
    """
    return _made(values, like.dtype, like.device)


def exact(device: torch.device) -> torch.dtype:
    """The dtype in which a divisor loses nothing; Apple's devices have no float64."""
    return torch.float32 if device.type == "mps" else torch.float64


@lru_cache(maxsize=64)
def _made(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    with torch.inference_mode(False):  # a tensor made there could not be used in training
        return torch.tensor(values, dtype=dtype, device=device)
