# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From dlogits to the gradients of hidden states, head weight and bias, summed over chunks."""

from __future__ import annotations

import torch
from torch import Tensor

from ..problem import Problem


class Gradients:
    """Sums the gradients with respect to logits, or hidden, head weight and bias, over chunks."""

    def __init__(self, problem: Problem, needs: tuple[bool, ...]) -> None:
        self.problem, self.needs = problem, needs
        self.logits: list[Tensor] = []
        self.hidden: list[Tensor] = []
        self.head_weight: Tensor | None = None
        bias = problem.head_bias
        self.head_bias = (
            torch.zeros_like(bias, dtype=problem.compute_dtype)
            if bias is not None and needs[3]
            else None
        )

    def add(self, chunk: Problem, gradient: Tensor | tuple[Tensor, Tensor]) -> None:
        """Add a chunk's share, given its dlogits ``(n, V)``, perhaps as a tensor and what each row
        is multiplied by.
        """
        dz, factor = (gradient, None) if isinstance(gradient, Tensor) else gradient
        if chunk.logits is not None:
            if self.needs[0]:
                self.logits.append(dz)
            return
        assert chunk.hidden is not None
        assert self.problem.hidden is not None
        assert self.problem.head_weight is not None
        if self.needs[1]:
            states = dz @ chunk.head()
            self.hidden.append(states if factor is None else states.mul_(factor))
        if self.needs[2]:
            hidden = chunk.hidden if factor is None else chunk.hidden * factor
            only = chunk.hidden.shape == self.problem.hidden.shape
            if only and dz.dtype == self.problem.head_weight.dtype:
                self.head_weight = dz.t() @ hidden
            else:
                self.head_weight = add_product(
                    self.head_weight, dz.t(), hidden, chunk.compute_dtype
                )

    def result(self, *, scaled: bool = True) -> tuple[Tensor | None, ...]:
        """Gradients for (logits, hidden, head_weight, head_bias), each in its tensor's dtype.

        Those that are yet to be `scaled` stay wide beside float16 tensors: a factor of 65536, as a
        GradScaler brings it, is inf there, and what it would lift to a number is 0 without it.
        """

        def narrow(grad: Tensor, dtype: torch.dtype) -> Tensor:
            return grad if dtype == torch.float16 and not scaled else grad.to(dtype)

        sums = (
            _cat(self.logits),
            _cat(self.hidden),
            self.head_weight,
            self.head_bias,
        )
        return tuple(
            None if grad is None or value is None else narrow(grad, value.dtype)
            for grad, value in zip(sums, self.problem.sources(), strict=True)
        )


def transformed(upstream: tuple[Tensor | None, ...]) -> bool:
    """Whether a backward pass runs under torch.func or for a batch of gradients at once
    (``is_grads_batched``), where nothing may be written in place.
    """
    if torch.compiler.is_compiling():
        return False
    if torch._C._are_functorch_transforms_active():
        return True
    batched = torch._C._functorch.is_legacy_batchedtensor  # what `is_grads_batched` makes
    return any(g is not None and batched(g) for g in upstream)


def add_product(total: Tensor | None, a: Tensor, b: Tensor, dtype: torch.dtype) -> Tensor:
    """``total + a @ b``, summed in `dtype` and in place; `total` None stands for 0.

    Summing a half-precision product in float32 matters: rounding to bfloat16 once a chunk is what
    users of other fused losses report as divergence. Where the library can, the sum happens inside
    the matrix product, which saves 12 bytes an entry of traffic.
    """
    inside = a.is_cuda and torch.version.hip is None and hasattr(torch.ops.aten.addmm, "dtype_out")
    if total is None:
        if a.dtype != dtype and inside:
            return torch.mm(a, b, out_dtype=dtype)
        return (a @ b).to(dtype)
    if a.dtype == dtype:
        return total.addmm_(a, b)
    if inside and not torch.compiler.is_compiling():  # torch 2.11 and 2.12 cannot trace it
        return torch.addmm(total, a, b, out_dtype=dtype, out=total)
    return total.add_(torch.mm(a, b, out_dtype=dtype) if inside else a @ b)


def _cat(parts: list[Tensor]) -> Tensor | None:
    if len(parts) < 2:  # no copy of an (N, V) gradient that came in one piece
        return parts[0] if parts else None
    return torch.cat(parts)
