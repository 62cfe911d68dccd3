# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Which classes a rank holds, where each rank has a slice of the head (vocabulary parallelism)."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from torch import Tensor


class ClassRange(NamedTuple):
    """Classes ``start .. stop`` of ``num_classes`` are on this rank, the others on its group.

    Beside data-parallel training the group is the ranks that share rows; gradients are averaged
    over the ranks that hold the same classes.

    Examples:
        >>> ClassRange.across(5)  # a process by itself holds all classes
        ClassRange(start=0, stop=5, num_classes=5, group=None)
    """

    start: int
    stop: int
    num_classes: int
    #: The ranks that together hold every class once; None is all ranks.
    group: Any = None

    @classmethod
    def across(cls, classes: int, group: Any = None) -> ClassRange:
        """This rank's range where the slices of the group's ranks follow each other in rank order.

        Call it once, on every rank of the group at the same time: it gathers the sizes.

        Args:
            classes: V_r, the rows of this rank's slice of the head, without padding; they may
                differ between ranks.
            group: a torch.distributed group; None is all ranks. One process needs none.

        Raises:
            ValueError: on every rank, if a rank holds no class.
        """
        sizes: list[Any] = [classes]
        rank = 0
        if dist.is_available() and dist.is_initialized():
            sizes = [None] * dist.get_world_size(group)
            dist.all_gather_object(sizes, classes, group=group)
            rank = dist.get_rank(group)
        empty = [i for i, size in enumerate(sizes) if size < 1]
        if empty:
            raise ValueError(
                f"Ranks {empty} of the group hold no class (sizes {sizes}): give each rank at "
                "least one row of the head, or leave it out of the group."
            )
        start = sum(sizes[:rank])
        return cls(start, start + classes, sum(sizes), group)

    @property
    def ranks(self) -> int:
        """How many ranks hold classes; 1 where torch.distributed is not running."""
        if not (dist.is_available() and dist.is_initialized()):
            return 1
        return dist.get_world_size(self.group)

    def stacked(self, value: Tensor) -> Tensor:
        """Every rank's tensor of one shape as ``(ranks, ...)``, without graph; a collective."""
        if self.ranks == 1 or not value.numel():
            return value.detach()[None]
        value = value.detach().contiguous()
        every = [torch.empty_like(value) for _ in range(self.ranks)]
        dist.all_gather(every, value, group=self.group)
        return torch.stack(every)

    def enter(self, rows: Tensor) -> Tensor:
        """The rows; backward, the sum of what every rank's classes want of them. A collective."""
        if self.ranks == 1:
            return rows
        return _Enter.apply(rows, self.group)  # type: ignore[no-untyped-call, no-any-return]

    def total(self, value: Tensor) -> Tensor:
        """The sum over the ranks, without graph; a collective."""
        value = value.detach().clone()
        if self.ranks > 1 and value.numel():
            dist.all_reduce(value, group=self.group)
        return value

    def whole(self, columns: Tensor) -> Tensor:
        """All classes ``(N, num_classes)`` of this rank's ``(N, stop - start)``; a collective.

        Without graph, the same bits on every rank of the group. For few rows: that is what slices
        of the head are there to avoid.
        """
        out = columns.new_zeros(len(columns), self.num_classes)
        out[:, self.start : self.stop] = columns.detach()
        if self.ranks > 1 and out.numel():
            dist.all_reduce(out, group=self.group)
        return out

    def check(self, classes: int, target: Tensor | None) -> None:
        """Raise a ValueError unless this rank has exactly the classes of its range."""
        if not 0 <= self.start < self.stop <= self.num_classes:
            raise ValueError(
                f"class_range must have 0 <= start < stop <= num_classes, got {tuple(self[:3])}: "
                "write ClassRange.across(len(head_weight), group)."
            )
        held = self.stop - self.start
        if held != classes:
            raise ValueError(
                f"class_range {self.start} .. {self.stop} has {held} classes and this rank's slice "
                f"of the head has {classes}: leave padding out, head_weight[:{held}], or write "
                f"ClassRange.across({classes}, group)."
            )
        if target is not None and target.ndim == 2:
            raise ValueError(
                f"class_range goes with class indices, got soft targets {tuple(target.shape)}: "
                "give the whole head to one rank, as by logits.redistribute(placements=...) of "
                "logits that are a DTensor."
            )


class _Enter(torch.autograd.Function):
    """See `ClassRange.enter`."""

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> Tensor:
        ctx.group = group
        return rows.view_as(rows)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        gradient = gradient.contiguous().clone()
        if gradient.numel():
            dist.all_reduce(gradient, group=ctx.group)
        return gradient, None
