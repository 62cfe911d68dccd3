# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Whole rows of logits, a few rows at a time, for losses that read more than statistics of them.

What is computed of a chunk is thrown away and computed again in the backward pass, so that of
hidden states and a head no ``(N, V)`` tensor is ever held, of student or teacher.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from lightning_losses.kernels.eager import chunked
from lightning_losses.kernels.logits import materialise
from lightning_losses.kernels.problem import LOWEST, Problem
from lightning_losses.kernels.valid_rows import compact, restore, zero_ignored_rows

#: So much smaller than the chunks of a pass, which works in place: autograd holds a dozen tensors
#: of a chunk's size at once. Smaller still, and reading the head again for each would dominate.
SMALLER = 4


class Source(NamedTuple):
    """What one tensor of logits is made of."""

    problem: Problem
    trained: bool
    """Whether anything gets a gradient through it; a teacher's does not."""


class Chunks:
    """The rows of a batch in chunks: arguments of a loss, with the logits made when asked for.

    Rows that do not count are left out where that asks no device, as the passes leave them out.

    Args:
        made: names of logits ``(N, V)``, and what makes them.
        rows: tensors ``(N, ...)`` by name, which are cut.
        others: what every chunk gets as it is.
        count: N.
    """

    def __init__(
        self,
        made: Mapping[str, Source],
        rows: Mapping[str, Tensor],
        others: Mapping[str, Any],
        count: int,
    ) -> None:
        self.all, self.kept = count, None
        # A tensor of all classes is not copied for that.
        for source in made.values() if all(tensor.ndim == 1 for tensor in rows.values()) else ():
            if self.kept is None:
                self.kept = compact(source.problem)[1]
        if self.kept is not None:
            kept = self.kept
            made = {n: s._replace(problem=s.problem.take(kept)) for n, s in made.items()}
            rows = {name: tensor.index_select(0, kept) for name, tensor in rows.items()}
            count = len(kept)
        self.made, self.rows, self.others, self.count = made, rows, others, count

    @classmethod
    def whole(cls, **rows: Tensor) -> Chunks:
        """One chunk of tensors that are there already."""
        return cls({}, rows, {}, len(next(iter(rows.values()))))

    def each(self, function: Callable[..., Tensor]) -> Tensor:
        """``function(**arguments)`` gives values ``(n,)`` of the rows of a chunk: those of all."""
        return restore(torch.cat(list(self._apply(function))), self.kept, self.all)

    def total(self, function: Callable[..., Tensor]) -> Tensor:
        """``function(**arguments)`` gives sums over the rows of a chunk: the sums over all."""
        parts = self._apply(function)
        total = next(parts)
        for part in parts:
            total = total + part
        return total

    def _apply(self, function: Callable[..., Tensor]) -> Iterator[Tensor]:
        if not self.made:
            yield function(**self.rows, **self.others)
            return
        size = max(min(_chunk_rows(source.problem) for source in self.made.values()), 1)
        size = max(-(-self.count // max(1, -(-self.count // size))), 1)  # of equal size
        # Hooks on what is saved, by which torch computes again, are not for torch.func.
        again = torch.is_grad_enabled() and not torch._C._are_functorch_transforms_active()

        before = self._versions() if again else ()

        def of_rows(start: int, stop: int, _: Tensor) -> Tensor:
            if again and self._versions() != before:
                # Torch notices such a change of what it saved; here nothing was saved.
                raise RuntimeError(
                    "Hidden states or a head were changed in place after the loss and before its "
                    "gradient, which would be that of other numbers: call backward() before "
                    "optimizer.step(), and before a teacher moves."
                )
            return function(**self._arguments(start, stop))

        # At least one chunk, even without rows, which keeps the graph connected.
        for start in range(0, max(self.count, 1), size):
            span = start, min(start + size, self.count)
            device = next(iter(self.made.values())).problem.source  # tells checkpoint where it is
            if again:
                yield checkpoint(
                    of_rows, *span, device, use_reentrant=False, preserve_rng_state=False
                )
            else:
                yield of_rows(*span, device)

    def _versions(self) -> tuple[int, ...]:
        """How often what logits are made of was changed in place; compiled code is not asked."""
        if torch.compiler.is_compiling():
            return ()
        tensors = (t for source in self.made.values() for t in source.problem.sources())
        return tuple(t._version for t in tensors if t is not None and not t.is_inference())

    def _arguments(self, start: int, stop: int) -> dict[str, Any]:
        found = {name: self._fit(tensor, start, stop) for name, tensor in self.rows.items()}
        for name, source in self.made.items():
            with torch.set_grad_enabled(torch.is_grad_enabled() and source.trained):
                problem = source.problem.rows(start, stop)
                z = materialise(problem)
                # As such logits would be passed: divided by a temperature, -inf is -inf.
                found[name] = (
                    z if problem.head_bias is None else torch.where(z == LOWEST, -torch.inf, z)
                )
        return found | dict(self.others)

    def _fit(self, tensor: Tensor, start: int, stop: int) -> Tensor:
        """Rows of a tensor in float32 at least; vectors of those that do not count are 0."""
        part = tensor[start:stop]
        if part.is_floating_point() and part.element_size() < 4:
            part = part.float()
        valid = next(iter(self.made.values())).problem.valid
        if part.ndim < 2 or valid is None:
            return part
        return zero_ignored_rows(part, valid[start:stop])


def _chunk_rows(problem: Problem) -> int:
    """Rows of a chunk: many enough that reading the head again costs little."""
    rows = chunked.CHUNK_BYTES // (4 * SMALLER * max(1, problem.classes))
    return max(chunked.MIN_CHUNK_ROWS, rows)
