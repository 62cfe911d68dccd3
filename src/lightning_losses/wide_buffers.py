# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`WideBuffers`: a module whose buffers follow it to another device, and are never narrowed."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn


class WideBuffers(nn.Module):
    """Keeps float32 under ``module.half()``, ``.to(torch.bfloat16)`` and bf16-true training.

    A precision plug-in casts every buffer; in bfloat16 small changes of a running mean would round
    away, and so would what was fitted in float64.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        def wide(tensor: Tensor) -> Tensor:
            made = fn(tensor)
            narrower = made.element_size() < tensor.element_size()
            return tensor.to(made.device) if narrower else made

        return super()._apply(wide, recurse)  # type: ignore[no-untyped-call]
