# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk passes in plain torch that exponentiate once.

Where the gradient is formed right after the statistics, these leave ``exp(z - max z)`` in the chunk
and the gradient scales it; an entropy's takes a logarithm instead of a second exponential. The
slope of a soft-cap needs z, also where that exponential is 0: there the passes are `chunked`'s.
"""

from __future__ import annotations

from torch import Tensor

from ..logits import backward_logit_options_
from ..problem import Problem
from ..row_math import Coefficients, exponentials_to_gradient_
from .chunked import (
    TORCH,
    Passes,
    block_parts,
    chunk_logits,
    chunk_rows,
    chunk_statistics,
    given_of,
    is_final,
)


def torch_passes(problem: Problem) -> Passes:
    """The cheapest passes in plain torch for statistics followed at once by their gradient."""
    return INPLACE if is_final(problem) and problem.softcap is None else TORCH


def _statistics(raw: Tensor, chunk: Problem, want: frozenset[str]) -> dict[str, Tensor]:
    """Statistics of a chunk of final logits, which become exponentials."""
    return chunk_statistics(raw, chunk, want, inplace=True)


def _gradient(
    raw: Tensor,
    chunk: Problem,
    stats: dict[str, Tensor],
    k: Coefficients,
    bias_grad: Tensor | None,
) -> Tensor:
    """Overwrite the exponentials with the gradient with respect to ``hidden W^T``."""
    for e, rows, own, factors in block_parts(raw, chunk, stats, k):
        dz = exponentials_to_gradient_(e, factors, given_of(rows, own))
        backward_logit_options_(dz, rows, None, bias_grad)
    return raw


INPLACE = Passes(chunk_logits, _statistics, _gradient, chunk_rows)
