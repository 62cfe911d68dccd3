# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Chunk passes in plain torch that exponentiate once.

Where the gradient is formed right after the statistics, these leave ``exp(z - max z)`` in the chunk
and the gradient scales it, or leaves even that to the products that follow (`_factored`); an
entropy's takes a logarithm instead of a second exponential. The slope of a soft-cap needs z, also
where that exponential is 0: there the passes are `chunked`'s.
"""

from __future__ import annotations

import torch
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
) -> Tensor | tuple[Tensor, Tensor]:
    """Overwrite the exponentials with the gradient with respect to ``hidden W^T``."""
    factor = _row_factor(chunk, k)
    if factor is not None:
        return _factored(raw, chunk, k, factor, bias_grad)
    for e, rows, own, factors in block_parts(raw, chunk, stats, k):
        dz = exponentials_to_gradient_(e, factors, given_of(rows, own))
        backward_logit_options_(dz, rows, None, bias_grad)
    return raw


def _row_factor(chunk: Problem, k: Coefficients) -> Tensor | None:
    """What each row of exponentials is multiplied by ``(n, 1)``, if that and one entry is all.

    So it is for losses of log p and log-sum-exp. No row may have an entry at the target alone.
    """
    if k.a is None or chunk.target is None or chunk.target.ndim > 1:
        return None
    if any(x is not None for x in (k.b, k.c, k.e, k.f, k.g)):
        return None
    if k.d is not None and (k.a.device.type != "cpu" or bool(((k.a == 0) & (k.d != 0)).any())):
        return None
    return k.a


def _factored(
    e: Tensor, chunk: Problem, k: Coefficients, factor: Tensor, bias_grad: Tensor | None
) -> tuple[Tensor, Tensor]:
    """The gradient as exponentials and a factor a row, which saves a pass over the classes:
    `Gradients` applies it to the ``(n, D)`` side of each product instead.
    """
    if k.d is not None:
        assert chunk.target is not None
        at_target = torch.where(factor == 0, 0, k.d / factor)
        e.scatter_add_(1, chunk.target[:, None], at_target)
    if chunk.temperature is not None:
        factor = factor / chunk.temperature[:, None]
    factor = factor * chunk.logit_scale
    if bias_grad is not None:
        bias_grad.addmv_(e.t(), factor[:, 0])
    return e, factor


INPLACE = Passes(chunk_logits, _statistics, _gradient, chunk_rows)
