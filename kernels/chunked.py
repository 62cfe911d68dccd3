# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics in plain torch on any device, holding one chunk of logits at a time.

Two sizes matter. A *chunk* of rows goes through the matrix products: with fewer than about 300 rows
re-reading the head dominates, which is what makes small chunks slow. A *block* of a few rows goes
through the elementwise passes: at 2 MiB it stays in cache, which makes them about six times
cheaper than on the whole chunk (`benchmarks/linear_ce.py`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from .problem import LOWEST, STATISTICS, Problem, materialise
from .row_math import Coefficients, block_gradient_, block_statistics, coefficients, gradient

CHUNK_BYTES = 64 * 2**20  # of float32 logits; 512 rows at 32,000 classes
BLOCK_BYTES = 2 * 2**20
MIN_CHUNK_ROWS = 128


def statistics(problem: Problem, want: tuple[str, ...]) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph. Two passes; differentiable twice."""
    values = _Statistics.apply(*problem, want)
    return {name: values[STATISTICS.index(name)] for name in want}


class _Statistics(torch.autograd.Function):
    """No `jvp` (it would forbid compile) and no `once_differentiable` (it drops second
    derivatives silently); forward mode raises torch's own error.
    """

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor | None, ...]:
        problem, want = Problem(*args[:-1]), frozenset(args[-1])
        # What backward needs beside the upstream gradients.
        want |= {"logsumexp"} | ({"prediction"} if "confidence" in want else set())
        parts: list[dict[str, Tensor]] = [
            block_statistics(block_logits(z, rows), rows.target, want)
            for chunk in chunks(problem)
            for z, rows in blocks(raw_logits(chunk, copy=False), chunk)
        ]
        return tuple(
            torch.cat([part[name] for part in parts]) if name in want else None
            for name in STATISTICS
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        problem = Problem(*inputs[:-1])
        out = dict(zip(STATISTICS, output, strict=True))
        if out["prediction"] is not None:
            ctx.mark_non_differentiable(out["prediction"])
        ctx.set_materialize_grads(False)
        ctx.options = (problem.softcap, problem.logit_scale)
        ctx.save_for_backward(*problem[:7], *output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        problem = Problem(*saved[:7], *ctx.options)
        out = dict(zip(STATISTICS, saved[7:], strict=True))
        grads = dict(zip(STATISTICS, upstream, strict=True))
        if all(grad is None for grad in upstream):
            return (None,) * 10
        # True only under create_graph (or torch.func): then every step must be out of place.
        if torch.is_grad_enabled():
            sums = _differentiable_backward(problem, grads, out["prediction"])
        else:
            sums = _backward(problem, grads, out, ctx.needs_input_grad)
        return (*sums, None, None, None, None, None, None)


def _backward(
    problem: Problem,
    grads: dict[str, Tensor | None],
    out: dict[str, Tensor | None],
    needs: tuple[bool, ...],
) -> tuple[Tensor | None, ...]:
    target = problem.target
    mass = target.sum(1) if target is not None and target.ndim == 2 else None
    stats = {name: value for name, value in out.items() if value is not None}
    k = coefficients(grads, stats, mass, problem.classes)
    into = Gradients(problem, needs[:4])
    start = 0
    for chunk in chunks(problem):
        stop = start + chunk.source.shape[0]
        part = {name: value[start:stop] for name, value in stats.items()}
        z = raw_logits(chunk, copy=True)
        into.add(chunk, logits_to_gradient_(z, chunk, part, cut(k, start, stop), into.head_bias))
        start = stop
    return into.result()


def cut(k: Coefficients, start: int, stop: int) -> Coefficients:
    """The coefficients of some of the rows."""
    return Coefficients(*(None if x is None else x[start:stop] for x in k))


def logits_to_gradient_(
    raw: Tensor,
    chunk: Problem,
    stats: dict[str, Tensor],
    k: Coefficients,
    bias_grad: Tensor | None,
) -> Tensor:
    """Overwrite the raw logits of a chunk with the gradient with respect to them."""
    start = 0
    for z, rows in blocks(raw, chunk):
        stop = start + z.shape[0]
        dz = block_logits(z, rows)
        # tanh' = 1 - tanh^2, from the capped logits, which the next step overwrites.
        slope = None
        if rows.softcap is not None:
            capped = dz if rows.temperature is None else dz * rows.temperature[:, None]
            slope = 1 - (capped / rows.softcap).square()
        prediction = stats["prediction"][start:stop] if "prediction" in stats else None
        dz = block_gradient_(
            dz, stats["logsumexp"][start:stop], cut(k, start, stop), rows.target, prediction
        )
        if slope is not None:
            dz.mul_(slope)
        if rows.temperature is not None:
            dz.div_(rows.temperature[:, None])
        if rows.logit_scale != 1.0:
            dz.mul_(rows.logit_scale)
        if bias_grad is not None:
            bias_grad.add_(dz.sum(0))
        if dz is not z:
            z.copy_(dz)
        start = stop
    return raw


class Gradients:
    """Sums the gradients with respect to logits, or hidden, head weight and bias, over chunks."""

    def __init__(self, problem: Problem, needs: tuple[bool, ...]) -> None:
        self.problem, self.needs = problem, needs
        self.logits: list[Tensor] = []
        self.hidden: list[Tensor] = []
        self.head_weight: Tensor | None = None
        bias = problem.head_bias
        self.head_bias = (
            torch.zeros_like(bias, dtype=problem.compute_dtype)
            if bias is not None and needs[3]
            else None
        )

    def add(self, chunk: Problem, dz: Tensor) -> None:
        """Add a chunk's share, given its dlogits ``(n, V)``."""
        if chunk.logits is not None:
            if self.needs[0]:
                self.logits.append(dz)
            return
        assert chunk.hidden is not None
        if self.needs[1]:
            self.hidden.append(dz @ chunk.head())
        if self.needs[2]:
            # Summed in float32 at least: rounding to bf16 once a chunk is what users of other
            # fused losses report as divergence.
            dtype = chunk.compute_dtype
            if self.head_weight is None:
                self.head_weight = (dz.t() @ chunk.hidden).to(dtype)
            elif dz.dtype == dtype:
                self.head_weight.addmm_(dz.t(), chunk.hidden)
            else:
                self.head_weight.add_(dz.t() @ chunk.hidden)

    def result(self) -> tuple[Tensor | None, ...]:
        """Gradients for (logits, hidden, head_weight, head_bias), each in its tensor's dtype."""
        found = (
            torch.cat(self.logits) if self.logits else None,
            torch.cat(self.hidden) if self.hidden else None,
            self.head_weight,
            self.head_bias,
        )
        return tuple(
            None if grad is None or value is None else grad.to(value.dtype)
            for grad, value in zip(found, self.problem[:4], strict=True)
        )


def _differentiable_backward(
    problem: Problem, grads: dict[str, Tensor | None], prediction: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The same gradients, themselves differentiable; holds ``(N, V)`` tensors."""
    z = materialise(problem)
    dz = gradient(z, grads, problem.target, prediction)
    if problem.temperature is not None:
        dz = dz / problem.temperature[:, None]
        z = z * problem.temperature[:, None]
    if problem.softcap is not None:
        dz = dz * (1 - (z / problem.softcap).square())
    dz = dz * problem.logit_scale
    if problem.valid is not None:
        dz = torch.where(problem.valid[:, None], dz, 0.0)
    bias = problem.head_bias
    bias_grad = None if bias is None else dz.sum(0).to(bias.dtype)
    if problem.logits is not None:
        return dz.to(problem.logits.dtype), None, None, bias_grad
    assert problem.hidden is not None
    assert problem.head_weight is not None
    dz = dz.to(problem.hidden.dtype)
    head_grad = (dz.t() @ problem.hidden).to(problem.head_weight.dtype)
    return None, dz @ problem.head(), head_grad, bias_grad


def chunks(problem: Problem) -> Iterator[Problem]:
    """The problem in pieces of rows; at least one, so that no rows at all still has a graph."""
    n = problem.source.shape[0]
    size = max(MIN_CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, problem.classes)))
    if problem.logits is not None:  # no matrix product: the blocks are all there is
        size = max(n, 1)
    for start in range(0, max(n, 1), size):
        yield problem.rows(start, min(start + size, n))


def blocks(z: Tensor, chunk: Problem) -> Iterator[tuple[Tensor, Problem]]:
    """A chunk's logits in pieces: on a CPU as small as its cache, elsewhere to bound memory."""
    n = z.shape[0]
    budget = BLOCK_BYTES if z.device.type == "cpu" else CHUNK_BYTES
    size = max(1, budget // (4 * max(1, z.shape[1])))
    if torch.compiler.is_compiling():  # a loop would be unrolled into the graph
        size = max(1, n)
    for start in range(0, max(n, 1), size):
        stop = min(start + size, n)
        yield z[start:stop], chunk.rows(start, stop)


def raw_logits(chunk: Problem, *, copy: bool) -> Tensor:
    """A chunk of ``hidden W^T`` ``(n, V)``, or the given logits, copied if to be overwritten."""
    if chunk.logits is not None:
        return chunk.logits.clone(memory_format=torch.contiguous_format) if copy else chunk.logits
    assert chunk.hidden is not None
    return chunk.hidden @ chunk.head().t()


def block_logits(z: Tensor, rows: Problem) -> Tensor:
    """Finished logits of a block: what `materialise` does, without graph; z itself if unchanged."""
    out = z.to(rows.compute_dtype)
    if rows.head_bias is not None:
        out = out + rows.head_bias
    if rows.logit_scale != 1.0:
        out = out * rows.logit_scale
    if rows.softcap is not None:
        out = (out / rows.softcap).tanh_().mul_(rows.softcap)
    if rows.temperature is not None:
        out = out / rows.temperature[:, None]
    if rows.valid is not None:
        out = torch.where(rows.valid[:, None], out, 0.0)
    # Only given logits or a bias can hold -inf; a matrix product of finite numbers cannot.
    if rows.logits is not None or rows.head_bias is not None:
        out = out.clamp(min=LOWEST)
    return out
