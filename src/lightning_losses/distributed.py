# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One policy for several ranks: gradients and values as if one rank had the whole batch.

Data-parallel training averages gradients over ranks. So a sum over local rows is divided by the
*global* count and multiplied by the world size; columns are gathered with gradient, whose backward
adds what every rank wants of a column; batch statistics are summed with gradient. Then the average
over ranks is the gradient of the global loss, whatever rows were ignored where.

The ranks that count are those that hold *other rows*: data, context and sequence parallel ranks,
never tensor-parallel ranks, which hold copies of the same ones. `over` says which they are, all
other functions here use it, and all ranks are meant where nobody says. A loss calls these functions
and knows nothing of meshes.

Values are synchronised while gradients are enabled. Without gradient (validation) every rank
reports its own batch, because ranks may have different numbers of batches and would wait forever.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
import torch.distributed as dist
import torch.distributed.nn.functional as dist_nn
from torch import Tensor

if TYPE_CHECKING:
    from torch.distributed.device_mesh import DeviceMesh

#: Instead of a group: no other rank has other rows.
ALONE = "alone"

#: Words in the name of a mesh's dimension that say whether its ranks hold other rows, or copies.
ROWS = frozenset("data dp ddp fsdp hsdp shard replicate batch context cp sequence sp".split())  # noqa: SIM905
COPIES = frozenset("tensor tp model mp pipeline pp".split())  # noqa: SIM905

SAY_WHICH = (
    "write build_objective(..., group=...), the torch.distributed group of the ranks that do"
)

_group: Any = None  # the one of `over`; None is all ranks


# -- which ranks -------------------------------------------------------------------------------


@contextmanager
def over(group: Any) -> Iterator[None]:
    """Within it, this group's ranks hold other rows: what every function below is over.

    Args:
        group: a torch.distributed group, `ALONE`, or None for what holds outside.
    """
    global _group
    before = _group
    _group = before if group is None else group
    try:
        yield
    finally:
        _group = before


def current_group() -> Any:
    """What `over` says, for a backward pass that comes when this is left; None if nobody does."""
    return _group


def group_is_said() -> bool:
    """Whether this is within `over`."""
    return _group is not None


def ranks_of(mesh: DeviceMesh, copies: Collection[int] = ()) -> Any:
    """The group of ranks that hold other rows, by the names of the mesh's dimensions.

    Every rank must come here at the same time, the first time: a group may have to be made.

    Args:
        mesh: of all ranks.
        copies: dimensions that are known to hold copies, whatever they are called.

    Returns:
        A group, None for all ranks, or `ALONE`.

    Raises:
        ValueError: a name that says neither, or ranks that are not in the mesh.
    """
    if mesh.size() != dist.get_world_size():
        raise ValueError(
            f"{mesh} has {mesh.size()} of {dist.get_world_size()} ranks, so nobody knows which of "
            f"the others hold other rows: {SAY_WHICH}."
        )
    names: Sequence[str | None] = mesh.mesh_dim_names or [None] * mesh.ndim
    several = [i for i in range(mesh.ndim) if mesh.size(i) > 1]
    held = [i for i in several if i not in copies and holds_other_rows(names[i])]
    if held == several:
        return None
    if not held:
        return ALONE
    if len(held) == 1:
        return mesh.get_group(held[0])
    return mesh[tuple(str(names[i]) for i in held)]._flatten().get_group()


def holds_other_rows(dimension: str | None) -> bool:
    """Whether ranks along a mesh's dimension hold other rows, by its name, or copies of the same.

    Raises:
        ValueError: the name says neither, or there is none.
    """
    words = set(re.split(r"[^a-z]+", (dimension or "").lower()))
    if words & COPIES:
        return False
    if words & ROWS:
        return True
    raise ValueError(
        f"the name of the mesh's dimension, {dimension!r}, does not say whether its ranks hold "
        "other rows (as 'data_parallel', 'context_parallel' do) or copies of them (as "
        "'tensor_parallel' does): name it so, as in init_device_mesh(..., mesh_dim_names=...), or "
        f"{SAY_WHICH}."
    )


def is_on_mesh(value: Any) -> bool:
    """Whether this is a DTensor, whose import others are spared."""
    return isinstance(value, Tensor) and hasattr(value, "full_tensor")


def ranks_of_strategy(strategy: Any) -> Any:
    """`ranks_of` the mesh of a Lightning or Fabric strategy; None, for all ranks, without one."""
    try:
        mesh = getattr(strategy, "device_mesh", None)
    except RuntimeError:  # there is none before processes have met
        return None
    return None if mesh is None else ranks_of(mesh)


class Ranks:
    """A group as an attribute of a module: copies share it, and pickling leaves it behind.

    A group is known to its process only; one that is loaded elsewhere would be another's.
    """

    def __init__(self, group: Any = None) -> None:
        self.group = group

    def __deepcopy__(self, memo: Any) -> Ranks:
        return self

    def __reduce__(self) -> Any:
        return Ranks, ()


# -- what is done over them --------------------------------------------------------------------


def world_size() -> int:
    """Number of ranks that train together; 1 where nothing is to be synchronised."""
    if not (dist.is_available() and dist.is_initialized() and torch.is_grad_enabled()):
        return 1
    return 1 if _group is ALONE else dist.get_world_size(_group)


def rank_of_all() -> tuple[int, int]:
    """This process's rank and the number of ranks, of all there are; ``(0, 1)`` of one alone."""
    if not (dist.is_available() and dist.is_initialized()):
        return 0, 1
    return dist.get_rank(), dist.get_world_size()


def all_sum(value: Tensor) -> Tensor:
    """Sum over ranks, without gradient."""
    if world_size() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value, group=_group)
    return value


def all_max(value: Tensor) -> Tensor:
    """Largest over ranks, without gradient."""
    if world_size() == 1:
        return value.detach()
    value = value.detach().clone()
    dist.all_reduce(value, op=dist.ReduceOp.MAX, group=_group)
    return value


def reduce_with_gradient(value: Tensor) -> Tensor:
    """Sum over ranks, with gradient; for statistics of a batch (scope ``batch``)."""
    if world_size() == 1:
        return value
    return dist_nn.all_reduce(value, group=_given(_group))  # type: ignore[no-untyped-call, no-any-return]


def gather_with_gradient(rows: Tensor) -> Tensor:
    """Rows ``(n, ...)`` of all ranks in rank order, ``(N, ...)``; for scope ``pairs``.

    Ranks may have different n. Integer and bool tensors travel without gradient.
    """
    if world_size() == 1:
        return rows
    counts = _counts(rows)
    width = max(counts)
    padded = torch.cat([rows, rows.new_zeros(width - len(rows), *rows.shape[1:])])
    if rows.is_floating_point():
        parts: list[Tensor] = list(_Gather.apply(padded.contiguous(), _group))  # type: ignore[no-untyped-call]
    else:
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded.contiguous(), group=_group)
    return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])


def row_offset(rows: Tensor) -> int:
    """Where this rank's rows begin in what `gather_with_gradient` returns."""
    if world_size() == 1:
        return 0
    return sum(_counts(rows)[: dist.get_rank(_group)])


def _counts(rows: Tensor) -> list[int]:
    count = torch.full((1,), len(rows), device=rows.device)
    counts = [torch.empty_like(count) for _ in range(dist.get_world_size(_group))]
    dist.all_gather(counts, count, group=_group)
    return [int(c) for c in counts]


def _given(group: Any) -> Any:
    return dist.group.WORLD if group is None else group


class _Gather(torch.autograd.Function):
    """Every rank's tensor; backward, the sum of what every rank wants of this one's.

    Not torch's own: over gloo and a group of some ranks, its backward takes a rank of the group
    for one of all ranks, and waits forever.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, group: Any) -> tuple[Tensor, ...]:
        ctx.group = group
        parts = [torch.empty_like(rows) for _ in range(dist.get_world_size(group))]
        dist.all_gather(parts, rows, group=group)
        return tuple(parts)

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> Any:
        group = _given(ctx.group)
        if dist.get_backend(group) == dist.Backend.NCCL:
            mine = torch.empty_like(wanted[0])
            parts = [part.contiguous() for part in wanted]
            return dist_nn.reduce_scatter(mine, parts, group=group), None  # type: ignore[no-untyped-call]
        total = dist_nn.all_reduce(torch.stack(wanted), group=group)  # type: ignore[no-untyped-call]
        return total[dist.get_rank(group)], None
