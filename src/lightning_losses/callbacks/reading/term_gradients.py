# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The gradient of each term apart, at the tensors where the model hands over to the losses.

Evaluates the terms again on detached copies of what they read, and follows their gradients back
through the graph of the real step no further than to the earliest tensor that was named. Nothing
that training uses is written.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
import torch.distributed as dist
from lightning.pytorch import Trainer
from torch import Tensor, nn

from lightning_losses.callbacks.reading.gather import num_row_ranks, summed
from lightning_losses.distributed import is_on_mesh
from lightning_losses.evaluation.rows import Rows
from lightning_losses.objective import Objective
from lightning_losses.softmax import ClassRange

#: Named tensors of the head: no trunk's output, though they may have a graph (a normalised head).
HEAD = ("head_weight", "head_bias")

#: Gradients of float16 tensors are taken of the loss times this, or they would round to 0.
SCALE = 2.0**12


class TermGradients(NamedTuple):
    """What the gradients of the terms are to each other."""

    terms: tuple[str, ...]
    gram: Tensor
    """``(T, T)`` inner products of the gradients, float32 at least."""
    reach: tuple[frozenset[str], ...]
    """Names of the tensors that the gradient of each term was taken at."""


class Interface(NamedTuple):
    """One tensor between the model and the losses."""

    name: str
    passed: Tensor
    """As the step made it, with graph."""
    read: Tensor
    """As the terms read it: flattened, upcast; descends from ``passed``."""


def term_gradients(
    objective: Objective,
    named: Mapping[str, Any],
    batch: Rows,
    normalizer: float | Tensor | None,
) -> TermGradients | None:
    """Inner products between the gradients of the weighted terms; None without a graph to follow.

    The gradient of a term is one vector: over the rows and columns of every named tensor that has
    a graph and descends from no other named tensor, such as ``hidden``, ``logits``, or ``features``
    where the logits were made from them.
    """
    handed_over = interfaces(named, batch)
    if not handed_over:
        return None
    copies = {i.name: i.read.detach().requires_grad_() for i in handed_over}
    weight = None if batch.weight is None else batch.weight.detach()
    tensors = {n: copies.get(n, without_graph(value)) for n, value in batch.tensors.items()}
    parts = objective.separately(batch._replace(tensors=tensors, weight=weight), normalizer)
    scale = SCALE if any(c.dtype == torch.float16 for c in copies.values()) else 1.0
    roots = earliest(handed_over)
    vectors: list[list[Tensor | None]] = []
    for value in parts.values():
        value = value.sum() / batch.num_valid.clamp(min=1) if value.ndim else value
        vectors.append(at_roots(value * scale, copies, handed_over, roots))
    dtype = torch.promote_types(torch.float32, next(iter(parts.values())).dtype)
    gram = torch.zeros(len(parts), len(parts), dtype=dtype, device=batch.device)
    sliced = torch.zeros_like(gram)  # what logits of some classes say
    held = batch.tensors.get("class_range")
    of_some = [held is not None and root.name == "logits" for root in roots]
    for i, a in enumerate(vectors):
        for j, b in enumerate(vectors[: i + 1]):
            for x, y, some in zip(a, b, of_some, strict=True):
                if x is not None and y is not None:
                    into = sliced if some else gram
                    into[i, j] += (x.to(dtype) * y.to(dtype)).sum()
    if held is not None and any(of_some):
        dist.all_reduce(sliced, group=held.group)
        gram += sliced
    gram += gram.tril(-1).t()
    names = [root.name for root in roots]
    reach = tuple(
        frozenset(n for n, v in zip(names, vector, strict=True) if v is not None)
        for vector in vectors
    )
    return TermGradients(tuple(parts), gram / scale**2, reach)


def at_roots(
    value: Tensor,
    copies: Mapping[str, Tensor],
    handed_over: list[Interface],
    roots: list[Interface],
) -> list[Tensor | None]:
    """The gradient of one value at the roots; None where it does not reach."""
    if not value.requires_grad:
        return [None] * len(roots)
    grads = torch.autograd.grad(value, list(copies.values()), retain_graph=True, allow_unused=True)
    reached = [(i.read, g) for i, g in zip(handed_over, grads, strict=True) if g is not None]
    if not reached:
        return [None] * len(roots)
    # Through the real graph, which stays as it is: nothing is accumulated and nothing freed.
    back = torch.autograd.grad(
        [read for read, _ in reached],
        [root.passed for root in roots],
        [g for _, g in reached],
        retain_graph=True,
        allow_unused=True,
    )
    return list(back)


def interfaces(named: Mapping[str, Any], batch: Rows) -> list[Interface]:
    """The tensors with a graph that the batch holds."""
    handed_over = []
    for name, read in batch.tensors.items():
        if name in HEAD or not isinstance(read, Tensor) or read.grad_fn is None:
            continue
        passed: Any = named.get(name)  # what a provider made was not passed
        own = isinstance(passed, Tensor) and passed.grad_fn is not None
        own = own and not is_on_mesh(passed)  # then what is read is this rank's part of it
        handed_over.append(Interface(name, passed if own else read, read))
    return handed_over


def earliest(handed_over: list[Interface]) -> list[Interface]:
    """Those that descend from no other; of several names for one tensor the first."""
    nodes: dict[tuple[Any, int], Interface] = {}
    for interface in handed_over:
        nodes.setdefault(node_of(interface.passed), interface)
    return [i for node, i in nodes.items() if not reaches(node, nodes.keys() - {node})]


def reaches(start: tuple[Any, int], goals: set[tuple[Any, int]]) -> bool:
    """Whether the graph behind an output leads to one of the others."""
    if not goals:
        return False
    seen, todo = {start[0]}, [start[0]]
    while todo:
        for following in todo.pop().next_functions:
            if following in goals:
                return True
            if following[0] is not None and following[0] not in seen:
                seen.add(following[0])
                todo.append(following[0])
    return False


def node_of(tensor: Tensor) -> tuple[Any, int]:
    """A tensor's place in the graph."""
    return tensor.grad_fn, tensor.output_nr


def without_graph(value: Any) -> Any:
    """A tensor, or those of a list, detached."""
    if isinstance(value, Tensor):
        return value.detach()
    if isinstance(value, (list, tuple)) and not isinstance(value, ClassRange):
        return type(value)(without_graph(item) for item in value)
    return value


def gram_of_ranks(trainer: Trainer, gram: Tensor) -> Tensor:
    """``(T, T)`` of the mean over ranks, which all come here.

    Each rank's gradient is of its own rows, at world size times their part of the mean.
    """
    return summed(trainer, gram) / num_row_ranks(trainer) ** 2


def has_fsdp2(module: nn.Module) -> bool:
    """Whether FSDP2 has put hooks on what its modules return.

    They run whenever a gradient is asked for there, and let go of the parameters that the loss is
    about to read.
    """
    if not dist.is_available():
        return False
    from torch.distributed.fsdp import FSDPModule

    return any(isinstance(part, FSDPModule) for part in module.modules())
