# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From what the ranks saw of attention to plain numbers, a head each."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import torch
from lightning.pytorch import Trainer
from torch import Tensor, nn
from torchmetrics.utilities.distributed import gather_all_tensors

from lightning_losses.callbacks.reading.gather import num_row_ranks, stacked
from lightning_losses.distributed import holds_other_rows, is_on_mesh
from lightning_losses.metrics.entropy.attention import AttentionEntropy


class Head(NamedTuple):
    """One head of one layer, over the rows of all ranks."""

    layer: str
    head: int
    entropy: float
    fraction: float
    lower_bound: float
    max_logit: float
    rows: float

    def cells(self) -> tuple[Any, ...]:
        """What the table shows, in order."""
        return self[:-1]


def ranks_of_heads(given: Iterable[Any], running: Sequence[nn.Module]) -> Any:
    """The group whose ranks have the other heads of a call; None where this rank has all.

    Tensor parallelism splits heads. Queries are then a DTensor ``(B, H, Q, D)`` split by heads, or
    plain tensors that come from layers split by what they put out (`ColwiseParallel`), which are
    parts of the module that attends.

    Args:
        given: what the function is called with.
        running: the modules that are running, the innermost last.
    """
    for value in given:
        if is_on_mesh(value):  # queries come first
            return next((value.device_mesh.get_group(i) for i in _split_along(value, 1)), None)
    for module in reversed(running):
        weights: list[Any] = [p for p in module.parameters() if p.ndim > 1]
        for weight in weights:
            for i in _split_along(weight, 0):
                if _copies(weight.device_mesh.mesh_dim_names, i):
                    return weight.device_mesh.get_group(i)
        if weights:
            return None
    return None


def _split_along(tensor: Any, dim: int) -> Iterator[int]:
    """Dimensions of its mesh over which a DTensor is split along ``dim``."""
    for i, place in enumerate(getattr(tensor, "placements", ())):
        if place.is_shard(dim) and tensor.device_mesh.size(i) > 1:
            yield i


def _copies(names: Sequence[str] | None, i: int) -> bool:
    """Whether a mesh says of its dimension that ranks along it have copies of the same rows."""
    try:
        return names is not None and not holds_other_rows(names[i])
    except ValueError:
        return False  # FSDP2 splits parameters as well, and makes meshes without names


def same_layers(
    trainer: Trainer, seen: Mapping[str, AttentionEntropy], split: Mapping[str, Any]
) -> Mapping[str, AttentionEntropy] | None:
    """The layers, if every rank saw the same ones; None otherwise, on every rank.

    Args:
        trainer: knows the ranks that hold other rows.
        seen: what this rank saw.
        split: of layers whose heads are split over ranks, the group of these.
    """
    if num_row_ranks(trainer) == 1 and not split:
        return seen
    # Ranks must not gather what differs in shape, so first they compare; the sum of byte values
    # times places stands for the names.
    device = trainer.strategy.root_device
    marks = stacked(trainer, _mark((f"{n} {len(one.entropy)}" for n, one in seen.items()), device))
    same = (marks == marks[0]).all().long()
    for group in {id(group): group for group in split.values()}.values():
        names = torch.stack(gather_all_tensors(_mark((*seen, "", *split), device), group))
        agreed = torch.stack(gather_all_tensors(same, group))
        same = ((names == names[0]).all() & agreed.all()).long()
    return seen if bool(same) else None


def _mark(words: Iterable[str], device: torch.device) -> Tensor:
    text = "\n".join(words).encode()
    mark = sum(place * byte for place, byte in enumerate(text, 1)) % (1 << 31)
    return torch.tensor([mark, len(text)], device=device)


def heads_of(
    trainer: Trainer, seen: Mapping[str, AttentionEntropy], split: Mapping[str, Any]
) -> list[Head]:
    """Every head; asks the device once, and every rank for its sums and its heads."""
    if not seen:
        return []
    packed = torch.cat([_packed(one) for one in seen.values()])  # (heads of all layers, 6)
    gathered = stacked(trainer, packed)
    packed = gathered.sum(0)
    packed[:, 3] = gathered[:, :, 3].amax(0)
    sizes = [len(one.entropy) for one in seen.values()]
    names, parts = [], []
    for name, part in zip(seen, torch.split(packed, sizes), strict=True):
        if name in split:
            part = torch.cat(gather_all_tensors(part.contiguous(), split[name]))
        parts.append(part)
        names += [(name, head) for head in range(len(part))]
    heads = []
    for (layer, i), row in zip(names, torch.cat(parts).tolist(), strict=True):
        entropy, fraction, bound, max_logit, rows, several = row
        some = max(rows, 1.0)
        bound = bound / some if rows else math.nan
        heads.append(
            Head(layer, i, entropy / some, fraction / max(several, 1.0), bound, max_logit, rows)
        )
    return heads


def _packed(one: AttentionEntropy) -> Tensor:
    """Sums that ranks may add, and the largest logit ``(H, 6)``."""
    sums = (
        one.entropy * one.rows,
        one.fraction * one.rows_of_fraction,
        one.lower_bound * one.rows,
        one.max_logit,
        one.rows,
        one.rows_of_fraction,
    )
    return torch.stack(sums, 1).float()
