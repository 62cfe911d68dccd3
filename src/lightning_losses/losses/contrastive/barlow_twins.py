# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Barlow Twins: the cross-correlation of two views' features is the identity."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from lightning_losses.distributed import all_sum, current_group, over, reduce_with_gradient
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views

#: Rows of a block on a CPU: as many as make so many numbers, which then stay in its cache, but no
#: fewer than `FEWEST`, below which D x D sums would be written more often than rows are read.
CPU_BLOCK = 2**16
FEWEST = 256

# torch leaves it without types.
_unpack_dual: Callable[[Tensor], forward_ad.UnpackedDualTensor] = forward_ad.unpack_dual


class BarlowTwins(nn.Module):
    """``scale (sum_i (1 - C_ii)^2 + redundancy sum_{i != j} C_ij^2)``, C the correlation of views.

    Zbontar et al., "Barlow Twins", arXiv 2103.03230. Every feature is standardised over the rows of
    all ranks (biased variance, eps 1e-5, a batch norm without weights), and C is the mean over all
    rows of the outer product of the views: statistics of each rank alone give another gradient.

    Costs three products of ``B x D x D``, one forward and two backward, which nobody can do
    without, and few passes over the rows: centred features are made again in the backward pass,
    block by block, and not kept. Kept is one D x D matrix.

    Args:
        redundancy: weight of the off-diagonal; the authors' code has 0.0051.
        scale: multiplies the loss; solo-learn has 0.024 or 0.1.
        eps: is added to the variance.

    Shapes: features and other_features ``(B, D)``, or features ``(B, 2, D)``; one number for the
    batch of all ranks, 0 for fewer than two rows; float32 at least.
    """

    scope = "batch"
    contract = TWO_VIEWS

    def __init__(self, redundancy: float = 0.005, scale: float = 1.0, eps: float = 1e-5) -> None:
        super().__init__()
        self.redundancy, self.scale, self.eps = redundancy, scale, eps

    def forward(
        self, features: Tensor, other_features: Tensor | None = None, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        a, b = two_views(features, other_features)
        dtype = torch.promote_types(a.dtype, torch.float32)
        a, b = a.to(dtype), b.to(dtype)
        if transformed(a, b):
            return self.by_autograd(a, b, valid)
        return self.by_hand(a, b, valid)

    def by_autograd(self, a: Tensor, b: Tensor, valid: Tensor | None) -> Tensor:
        """The loss as it is defined, for transforms of functions and for second derivatives."""
        kept = torch.ones_like(a[:, :1], dtype=torch.bool) if valid is None else valid[:, None]
        a, b = torch.where(kept, a, 0), torch.where(kept, b, 0)
        count = all_sum(kept.sum().to(a.dtype))
        each = count.clamp(min=1)
        mean = reduce_with_gradient(torch.stack([a.sum(0), b.sum(0)])) / each
        a, b = torch.where(kept, a - mean[0], 0), torch.where(kept, b - mean[1], 0)
        variance = reduce_with_gradient(torch.stack([a.square().sum(0), b.square().sum(0)])) / each
        inverse = (variance + self.eps).rsqrt()
        correlation = reduce_with_gradient(a.t() @ b) / each * inverse[0][:, None] * inverse[1]
        diagonal = correlation.diagonal()
        off = correlation.square().sum() - diagonal.square().sum()
        loss = (1 - diagonal).square().sum() + self.redundancy * off
        # One row has no correlation: all of it is its own mean.
        return self.scale * torch.where(count > 1, loss, correlation.sum() * 0)

    def by_hand(self, a: Tensor, b: Tensor, valid: Tensor | None) -> Tensor:
        """The same, and its gradient with respect to C beside it, in the memory of C."""
        x, y = a.detach(), b.detach()
        kept = torch.ones_like(x[:, 0], dtype=torch.bool) if valid is None else valid
        count = all_sum(kept.sum().to(x.dtype))
        each = count.clamp(min=1)
        mean = all_sum(torch.stack([total(x, valid), total(y, valid)])) / each
        matrix, squares = x.new_zeros(x.shape[1], x.shape[1]), torch.zeros_like(mean)
        for _, p, q in centred(x, y, mean, valid):
            matrix.addmm_(p.t(), q)
            squares[0] += p.square_().sum(0)
            squares[1] += q.square_().sum(0)
        matrix, inverse = all_sum(matrix), (all_sum(squares) / each + self.eps).rsqrt()
        left = (inverse[0] / each)[:, None]
        matrix.mul_(left).mul_(inverse[1])  # is C
        diagonal = matrix.diagonal().clone()
        matrix.fill_diagonal_(0)
        off = torch.stack([torch.linalg.vector_norm(matrix, dim=d).square() for d in (1, 0)])
        loss = (1 - diagonal).square().sum() + self.redundancy * off[0].sum()
        value = self.scale * torch.where(count > 1, loss, off.sum() * 0)
        if not (torch.is_grad_enabled() and (a.requires_grad or b.requires_grad)):
            return value
        factor = self.scale * (count > 1).to(x.dtype)  # a bool times 0.7 would be float32
        slope = 2 * factor * (diagonal - 1)
        # What a column's length does to its row, or its column, of C.
        pull = 2 * factor * self.redundancy * off + slope * diagonal
        pull *= -inverse.square() / each
        matrix.mul_(2 * factor * self.redundancy * left).mul_(inverse[1])
        matrix.diagonal().copy_(slope * left[:, 0] * inverse[1])
        known: Tensor = _Known.apply(  # type: ignore[no-untyped-call]
            a, b, value, (mean, matrix, pull, valid), self, current_group()
        )
        return known


class _Known(torch.autograd.Function):
    """A value of which it is known how a row pulls: ``y M' + x pull``, of centred x and y."""

    @staticmethod
    def forward(
        ctx: Any,
        a: Tensor,
        b: Tensor,
        value: Tensor,
        parts: tuple[Tensor, Tensor, Tensor, Tensor | None],
        loss: BarlowTwins,
        group: Any,
    ) -> Tensor:
        ctx.save_for_backward(a, b, *parts)
        ctx.loss, ctx.group = loss, group
        return value.clone()

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        a, b, mean, matrix, pull, valid = ctx.saved_tensors
        asked = ctx.needs_input_grad[:2]
        if torch.is_grad_enabled():  # for a second derivative
            with over(ctx.group):
                again = ctx.loss.by_autograd(a, b, valid)
            wanted = [t for t, needed in zip((a, b), asked, strict=True) if needed]
            found = iter(torch.autograd.grad(again, wanted, grad, create_graph=True))
            return (*(next(found) if needed else None for needed in asked), *[None] * 4)
        with over(ctx.group), torch.enable_grad():  # ranks meet while there are gradients
            grad = all_sum(grad)
        made = [torch.empty_like(t, memory_format=torch.contiguous_format) for t in (a, b)]
        for rows, p, q in centred(a.detach(), b.detach(), mean, valid):
            p *= grad
            q *= grad
            # No mean to take off: columns that are centred stay so.
            for out, own, other, m, along, needed in (
                (made[0], p, q, matrix.t(), pull[0], asked[0]),
                (made[1], q, p, matrix, pull[1], asked[1]),
            ):
                if needed:
                    torch.mm(other, m, out=out[rows]).addcmul_(own, along)
        return (
            *(m if needed else None for m, needed in zip(made, asked, strict=True)),
            *[None] * 4,
        )


def transformed(*tensors: Tensor) -> bool:
    """Whether this is compiled, mapped or differentiated forward, which `_Known` cannot be."""
    return (
        torch.compiler.is_compiling()
        or torch._C._are_functorch_transforms_active()
        or any(_unpack_dual(t).tangent is not None for t in tensors)
    )


def centred(
    x: Tensor, y: Tensor, mean: Tensor, valid: Tensor | None
) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Rows of both less their means, 0 where they do not count, block by block in one memory."""
    size = max(1, len(x))
    if x.device.type == "cpu":
        size = min(size, max(FEWEST, CPU_BLOCK // max(1, x.shape[1])))
    p, q = x.new_empty(2, size, x.shape[1])
    for start in range(0, len(x), size):
        rows = slice(start, min(start + size, len(x)))
        for each, center, held in ((x, mean[0], p), (y, mean[1], q)):
            part = torch.sub(each[rows], center, out=held[: rows.stop - start])
            if valid is not None:
                part.masked_fill_(~valid[rows, None], 0)
        yield rows, p[: rows.stop - start], q[: rows.stop - start]


def total(x: Tensor, valid: Tensor | None) -> Tensor:
    """Sum of the rows that count, ``(D,)``."""
    return (x if valid is None else torch.where(valid[:, None], x, 0)).sum(0)
