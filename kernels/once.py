# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk passes in plain torch that exponentiate once.

Where the gradient is formed right after the statistics, these leave ``exp(z - max z)`` in the chunk
and the gradient scales it; an entropy's takes a logarithm instead of a second exponential. The
slope of a soft-cap needs z, also where that exponential is 0: there the passes are `chunked`'s.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .chunked import TORCH, Passes, blocks, chunk_logits, chunk_rows, cut, finished, undress_
from .problem import Problem
from .row_math import Coefficients, block_statistics, exponentials_to_gradient_


def torch_passes(problem: Problem) -> Passes:
    """The cheapest passes in plain torch for statistics followed at once by their gradient."""
    return ONCE if finished(problem) and problem.softcap is None else TORCH


def _statistics(raw: Tensor, chunk: Problem, want: frozenset[str]) -> dict[str, Tensor]:
    """Statistics of a chunk of finished logits, which become exponentials."""
    want |= {"confidence"}
    parts = [block_statistics(z, rows.target, want, spend=True) for z, rows in blocks(raw, chunk)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def _gradient(
    raw: Tensor,
    chunk: Problem,
    stats: dict[str, Tensor],
    k: Coefficients,
    bias_grad: Tensor | None,
) -> Tensor:
    """Overwrite the exponentials with the gradient with respect to ``hidden W^T``."""
    start = 0
    for e, rows in blocks(raw, chunk):
        own = slice(start, start + len(e))
        dz = exponentials_to_gradient_(
            e,
            stats["logsumexp"][own],
            stats["confidence"][own],
            cut(k, own.start, own.stop),
            rows.target,
            stats["prediction"][own] if k.f is not None else None,
        )
        undress_(dz, rows, bias_grad)
        start = own.stop
    return raw


ONCE = Passes(chunk_logits, _statistics, _gradient, chunk_rows)
