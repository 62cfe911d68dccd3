# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DTensors as they come: from tensors on a mesh to this rank's rows and this rank's classes.

A dimension of a mesh holds other rows, or copies of the same (`distributed.holds_other_rows`).

- Along other rows a tensor of rows stays as it is split, and a head is made whole (FSDP2 splits it
  to save memory); its gradient is the mean over these ranks, as data-parallel training has it.
- Along copies logits split by classes and a head split by classes stay so, and the one pass merges
  what the slices say (`ClassRange`). Everything else is made whole: hidden states that sequence
  parallelism has split by positions, partial sums, a head split by features.

Gradients go back through the same steps, as DTensors of the placements that came.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from lightning_losses.distributed import group_is_said, holds_other_rows, is_on_mesh, ranks_of
from lightning_losses.named_tensors import NAMED_TENSORS
from lightning_losses.softmax import ClassRange, check_shift, shift_left

HEAD = ("head_weight", "head_bias")
#: Of a teacher every rank takes all, whatever splits it: nothing flows back.
TEACHER_HEAD = ("teacher_head_weight", "teacher_head_bias")


class Local(NamedTuple):
    """What a rank computes with."""

    tensors: dict[str, Any]
    group: Any
    """The ranks that hold other rows, as the meshes say; None where there are none."""


def to_local(given: Mapping[str, Any], ignore_index: int, head: nn.Module | None = None) -> Local:
    """DTensors among the named tensors as plain ones, with ``class_range`` if classes are split.

    Args:
        given: named tensors, not flattened.
        ignore_index: fills what a shift leaves open at the end of a sequence.
        head: the module that head_weight is of, if it was passed.

    Raises:
        ValueError: it is not known which ranks hold other rows; head and bias are split
            differently; classes are split twice; a shift would cross to another rank.
    """
    held = {name: value for name, value in given.items() if is_on_mesh(value)}
    if not held:
        return Local(dict(given), None)
    return _Door(dict(given), held, ignore_index, head).result()


class _Door:
    """One call's tensors on their way; `of_rows` and `classes` say what each dimension is."""

    def __init__(
        self,
        given: dict[str, Any],
        held: dict[str, Any],
        ignore_index: int,
        head: nn.Module | None,
    ) -> None:
        self.given, self.held, self.ignore_index = given, held, ignore_index
        self.source = next((n for n in ("logits", "hidden", "target") if n in held), None)
        #: Dimensions of one without names, of which only what they split tells the kind.
        self.unnamed: bool | None = None
        if head is not None and _is_fsdp(head):
            self.unnamed = True
        elif "logits" in held or ("hidden" in held and "head_weight" in held):
            self.unnamed = False

    def result(self) -> Local:
        """The tensors, and the group that their mesh says."""
        class_range = self._class_range()
        group = self._group()
        self._shift()
        tensors = {}
        for name, value in self.given.items():
            if name in HEAD:
                tensors[name] = self._head(value) if name in self.held else value
            elif name in TEACHER_HEAD and name in self.held:
                tensors[name] = value.detach().full_tensor()
            elif name in self.held:
                tensors[name] = self._rows(name, value)
            else:
                tensors[name] = self._cut(name, value)
        if class_range is not None:
            tensors["class_range"] = class_range
        return Local(tensors, group)

    # -- what a dimension of a mesh is -------------------------------------------------------------

    def _other_rows(self, mesh: Any, i: int) -> bool:
        """Whether ranks along dimension i hold other rows; of one rank it does not matter."""
        if mesh.size(i) == 1:
            return False
        names = mesh.mesh_dim_names
        if names is None and self.unnamed is not None:
            return self.unnamed
        return holds_other_rows(None if names is None else names[i])

    def _split_classes(self, name: str) -> list[int]:
        """Dimensions of the mesh along which this tensor is split by classes."""
        tensor = self.held.get(name)
        if tensor is None or (name == "logits" and tensor.ndim < 2):
            return []
        mesh, dim = tensor.device_mesh, tensor.ndim - 1 if name == "logits" else 0
        return [
            i
            for i, place in enumerate(tensor.placements)
            if place.is_shard(dim) and mesh.size(i) > 1 and not self._other_rows(mesh, i)
        ]

    def _class_range(self) -> ClassRange | None:
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        name = "logits" if "logits" in self.given else "head_weight"
        split = self._split_classes(name)
        bias = self.given.get("head_bias")
        if name == "head_weight" and bias is not None:
            other = self._split_classes("head_bias")
            if other != split or is_on_mesh(bias) != is_on_mesh(self.given.get(name)):
                raise ValueError(
                    f"head_weight {_placed(self.given.get(name))} and head_bias {_placed(bias)} "
                    "are split differently: pass both as DTensors of the same placements, as "
                    "parallelize_module makes them, or both whole (.full_tensor())."
                )
        if not split:
            return None
        tensor = self.held[name]
        if len(split) > 1:
            raise ValueError(
                f"{name} is split by classes along {len(split)} dimensions of its mesh "
                f"{_placed(tensor)}: write {name}.redistribute(placements=[...]) with Shard along "
                "one of them."
            )
        mesh, dim = tensor.device_mesh, tensor.ndim - 1 if name == "logits" else 0
        shape, offset = compute_local_shape_and_global_offset(
            tensor.shape,
            mesh,
            [tensor.placements[i] if i in split else _replicate() for i in range(mesh.ndim)],
        )
        if shape[dim] == tensor.shape[dim]:
            return None
        start = offset[dim]
        group = mesh.get_group(split[0])
        return ClassRange(start, start + shape[dim], tensor.shape[dim], group)

    def _group(self) -> Any:
        """The ranks that hold other rows, by the mesh that this one is a part of."""
        tensor = self.held[self.source] if self.source else next(iter(self.held.values()))
        if group_is_said():
            return None
        mesh = tensor.device_mesh
        root = mesh._get_root_mesh()
        rows = [self._other_rows(mesh, i) for i in range(mesh.ndim)]
        if mesh.mesh_dim_names is None or root.mesh_dim_names is None:
            copies = [i for i, other in enumerate(rows) if not other]
            return ranks_of(mesh, copies) if copies else None
        # Rows that are whole along a dimension are copies, whatever it is called.
        whole = {
            mesh.mesh_dim_names[i]
            for i, place in enumerate(tensor.placements)
            if self.source is not None and rows[i] and place.is_replicate()
        }
        return ranks_of(root, [i for i, name in enumerate(root.mesh_dim_names) if name in whole])

    # -- tensors -----------------------------------------------------------------------------------

    def _head(self, weight: Any) -> Tensor:
        """This rank's classes of a head, all their features; its gradient a mean over rows."""
        mesh = weight.device_mesh
        wanted, grads, ranks = [], [], 1
        for i, place in enumerate(weight.placements):
            if self._other_rows(mesh, i):
                wanted.append(_replicate())
                grads.append(_partial())
                ranks *= mesh.size(i)
            else:
                keep = place if place.is_shard(0) else _replicate()
                wanted.append(keep)
                grads.append(keep)
        whole = weight.redistribute(placements=wanted)
        local: Tensor = whole.to_local(grad_placements=grads)
        return local if ranks == 1 else _MeanGradient.apply(local, ranks)  # type: ignore[no-untyped-call, no-any-return]

    def _rows(self, name: str, tensor: Any) -> Tensor:
        """This rank's rows, whole ones but for classes of logits."""
        mesh = tensor.device_mesh
        classes = self._split_classes(name) if name == "logits" else []
        wanted = []
        for i, place in enumerate(tensor.placements):
            keep = i in classes or (
                self._other_rows(mesh, i) and place.is_shard() and self._is_row_dim(name, place.dim)
            )
            wanted.append(place if keep else _replicate())
        local: Tensor = tensor.redistribute(placements=wanted).to_local()
        cut: Tensor = self._cut(name, local)
        return cut

    def _is_row_dim(self, name: str, dim: int) -> bool:
        source = self.held.get(self.source) if self.source else None
        if source is None or name == self.source or not _has_rows(name):
            return True
        leading: int = max(1, source.ndim - 1)
        return dim < leading

    def _cut(self, name: str, value: Any) -> Any:
        """This rank's part of plain rows that were passed whole, where logits are split by rows."""
        if self.source not in ("logits", "hidden") or not _has_rows(name):
            return value
        if not isinstance(value, Tensor) or name == self.source:
            return value
        for dim, (size, start, length) in enumerate(self._spans()):
            if dim < value.ndim and value.shape[dim] == size != length:
                value = value.narrow(dim, start, length)
        return value

    def _spans(self) -> list[tuple[int, int, int]]:
        """Of each dimension of rows: how long, where this rank's part begins, its length."""
        from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

        assert self.source is not None
        source = self.held[self.source]
        mesh = source.device_mesh
        lead = max(1, source.ndim - 1)
        kept = [
            place if place.is_shard() and place.dim < lead and self._other_rows(mesh, i)
            else _replicate()
            for i, place in enumerate(source.placements)
        ]  # fmt: skip
        shape, offset = compute_local_shape_and_global_offset(source.shape, mesh, kept)
        return list(zip(source.shape[:lead], offset[:lead], shape[:lead], strict=True))

    def _shift(self) -> None:
        """Shift before sequences are cut: the next position may be on another rank."""
        shift = self.given.get("shift", 0)
        if not shift or self.source not in ("logits", "hidden"):
            return
        spans = self._spans()
        size, _, length = spans[-1]
        if size == length:
            return
        check_shift(shift, tuple(self.held[self.source].shape[:-1]))
        moved = (("target", self.ignore_index), ("mask", False), ("sample_weight", 0.0))
        for name, fill in moved:
            value = self.given.get(name)
            if not isinstance(value, Tensor) or value.ndim < len(spans):
                continue
            whole: Tensor = value.full_tensor() if name in self.held else value  # type: ignore[attr-defined]
            if whole.shape[len(spans) - 1] != size:
                raise ValueError(
                    f"shift={shift} with sequences of {size} positions that are split over ranks: "
                    f"pass {name} whole, as a DTensor split alike, or shifted already, without "
                    f"shift; got {tuple(value.shape)}."
                )
            self.given[name] = shift_left(whole, shift, fill)
            self.held.pop(name, None)
        if "target" not in self.given and "mask" not in self.given:
            device = self.held[self.source].device
            mask = torch.ones([span[0] for span in spans], dtype=torch.bool, device=device)
            self.given["mask"] = shift_left(mask, shift, False)
        del self.given["shift"]


class _MeanGradient(torch.autograd.Function):
    """The tensor itself; backward, the gradient over the ranks that it will be summed over."""

    @staticmethod
    def forward(ctx: Any, tensor: Tensor, ranks: int) -> Tensor:
        ctx.ranks = ranks
        return tensor.view_as(tensor)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return gradient / ctx.ranks, None


def _has_rows(name: str) -> bool:
    word = NAMED_TENSORS.get(name)
    return word is not None and word.layout in ("rows", "vectors")


def _is_fsdp(module: nn.Module) -> bool:
    from torch.distributed.fsdp import FSDPModule

    return isinstance(module, FSDPModule)


def _replicate() -> Any:
    from torch.distributed.tensor import Replicate

    return Replicate()


def _partial() -> Any:
    from torch.distributed.tensor import Partial

    return Partial()


def _placed(tensor: Any) -> str:
    return str(tuple(tensor.placements)) if is_on_mesh(tensor) else "(whole)"
