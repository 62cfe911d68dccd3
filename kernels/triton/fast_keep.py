# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Modes fast and keep: the library's matrix products, one Triton pass over each chunk of logits.

Everything but the two passes (chunks, coefficients, sums of gradients, second derivatives) is
`chunked`'s and `row_fused`'s. The passes are custom ops, so that `torch.compile` sees them whole.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..eager import chunked
from ..eager import row_fused as _row_fused
from ..eager.chunked import Passes
from ..eager.row_fused import RowFunction
from ..problem import MAX_AND_SUM, STATISTICS, Problem
from ..row_math import Coefficients
from .common import flat
from .row_ops import row_gradient, row_statistics
from .tiles import fast_chunk_rows


def statistics(problem: Problem, want: tuple[str, ...], *, keep: bool = False) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph; differentiable twice.

    Args:
        keep: hold the logits ``(N, V)``, in the dtype of the hidden states, until the backward
            pass overwrites them with their gradient: three matrix products instead of four.
    """
    needed = torch.is_grad_enabled() and any(
        tensor is not None and tensor.requires_grad for tensor in problem.sources()
    )
    if keep and needed and problem.logits is None and not torch.compiler.is_compiling():
        # All rows, of the problem at hand: under vmap that has more of them.
        passes = FUSED._replace(
            logits=_Kept(), chunk_rows=lambda given: max(1, given.source.shape[0])
        )
        return chunked.statistics(problem, want, chunked.by_chunks(passes))
    return chunked.statistics(problem, want, BY_CHUNKS)


def row_fused(
    problem: Problem, want: tuple[str, ...], row_function: RowFunction, rows: dict[str, Tensor]
) -> tuple[Tensor, dict[str, Tensor], Tensor]:
    """Mode fast: see `row_fused.row_fused`."""
    return _row_fused.row_fused(problem, want, row_function, rows, FUSED)


class _Kept:
    """Makes logits once and hands them to the first backward pass; a second makes them again."""

    def __init__(self) -> None:
        self.calls = 0
        self.held: Tensor | None = None

    def __call__(self, problem: Problem, used: Tensor | None) -> Tensor:
        self.calls += 1
        if self.calls == 1:
            self.held = raw_logits(problem, None)
            return self.held
        held, self.held = self.held, None
        return raw_logits(problem, None) if held is None else held


def raw_logits(chunk: Problem, used: Tensor | None) -> Tensor:
    """A chunk of ``hidden W^T`` ``(n, V)``, or the given logits with adjacent classes adjacent.

    Rows start on 32 bytes whatever V is, without which no load is wide.
    """
    if chunk.logits is not None:
        return _adjacent(chunk.logits)
    assert chunk.hidden is not None
    n, classes = chunk.hidden.shape[0], chunk.classes
    if torch.compiler.is_compiling():  # which refuses a strided out=
        return chunk.hidden @ chunk.head().t()
    if used is None:
        used = chunk.hidden.new_empty(n, -(-classes // 16) * 16)[:, :classes]
    return torch.mm(chunk.hidden, chunk.head().t(), out=used[:n])


def chunk_statistics(raw: Tensor, chunk: Problem, want: frozenset[str]) -> dict[str, Tensor]:
    """Statistics of a chunk from its raw logits ``(n, V)``, which are only read."""
    names = [*MAX_AND_SUM, *(name for name in STATISTICS if name in want)]
    hard, soft = _targets(chunk) if "log_prob" in want else (None, None)
    values = row_statistics(
        raw,
        chunk.head_bias,
        chunk.temperature,
        hard,
        soft,
        chunk.class_weight if "weighted_log_prob" in want else None,
        chunk.valid,
        chunk.logit_scale,
        chunk.softcap,
        " ".join(names),
        chunk.logits is not None or chunk.head_bias is not None,
    )
    return dict(zip(names, values, strict=True))


def logits_to_gradient(
    raw: Tensor,
    chunk: Problem,
    stats: dict[str, Tensor],
    k: Coefficients,
    bias_grad: Tensor | None,
) -> Tensor:
    """dlogits of a chunk, over its raw logits unless those are the caller's."""
    mine = chunk.logits is None
    out = raw if mine else torch.empty_like(raw, memory_format=torch.contiguous_format)
    hard, soft = _targets(chunk) if k.d is not None else (None, None)
    row_gradient(
        None if mine else raw,
        out,
        chunk.head_bias,
        chunk.temperature,
        hard,
        soft,
        chunk.class_weight if k.g is not None else None,
        chunk.valid,
        stats["max_logit"],
        stats.get("prediction") if k.f is not None else None,
        *k,
        chunk.logit_scale,
        chunk.softcap,
        chunk.logits is not None or chunk.head_bias is not None,
    )
    if bias_grad is not None:
        bias_grad.add_(out.sum(0, dtype=bias_grad.dtype))
    return out


FUSED = Passes(raw_logits, chunk_statistics, logits_to_gradient, fast_chunk_rows)
BY_CHUNKS = chunked.by_chunks(FUSED)


def _targets(chunk: Problem) -> tuple[Tensor | None, Tensor | None]:
    """(class indices, soft targets), one of them None."""
    target = chunk.target
    if target is None or target.ndim == 1:
        return flat(target), None
    return None, _adjacent(target)


def _adjacent(x: Tensor) -> Tensor:
    """x ``(n, V)`` with adjacent classes adjacent in memory.

    Compiled code does not know the strides of what a backward pass saved, and asks for none.
    """
    return x if not torch.compiler.is_compiling() and x.stride(1) == 1 else x.contiguous()
