# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The statistics in plain torch on any device, holding one chunk of logits at a time.

Two sizes matter. A *chunk* of rows goes through the matrix products: with fewer than about 300 rows
re-reading the head dominates, which is what makes small chunks slow. A *block* of a few rows goes
through the elementwise passes: at 4 MiB it stays in cache, which makes them several times
cheaper than on the whole chunk.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import torch
from torch import Tensor

from ..problem import LOWEST, STATISTICS, Problem
from ..row_math import Coefficients, block_gradient_, block_statistics, coefficients, target_mass
from . import double_backward as twice
from .gradients import Gradients

CHUNK_BYTES = 96 * 2**20  # of float32 logits; 786 rows at 32,000 classes
BLOCK_BYTES = 4 * 2**20
MIN_CHUNK_ROWS = 128


class Passes(NamedTuple):
    """What is done to one chunk; plain torch here, fused kernels in `triton_fused`.

    The loop over chunks, the coefficients, the sums of gradients and the branch for second
    derivatives are the same for both.
    """

    #: (chunk, a used-up chunk of logits or None) -> hidden W^T ``(n, V)``, over that if given; or
    #: the given logits. A new allocation a chunk would cost its page faults each time.
    logits: Callable[[Problem, Tensor | None], Tensor]
    statistics: Callable[[Tensor, Problem, frozenset[str]], dict[str, Tensor]]
    #: (raw logits, chunk, statistics, coefficients, bias gradient to add to) -> dlogits (n, V), in
    #: place of the raw logits unless the caller owns those
    gradient: Callable[[Tensor, Problem, dict[str, Tensor], Coefficients, Tensor | None], Tensor]
    chunk_rows: Callable[[Problem], int]


class Route(NamedTuple):
    """The two halves of `statistics`; by chunks here, without any logits in `triton_lean`."""

    forward: Callable[[Problem, frozenset[str]], dict[str, Tensor]]
    #: (problem, statistics, coefficients, which of logits, hidden, head weight and bias need a
    #: gradient) -> those gradients
    backward: Callable[
        [Problem, dict[str, Tensor], Coefficients, tuple[bool, ...]], tuple[Tensor | None, ...]
    ]


def statistics(
    problem: Problem, want: tuple[str, ...], route: Route | None = None
) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph. Two passes; differentiable twice."""
    values = _Statistics.apply(*problem, want, route or BY_CHUNKS)  # type: ignore[no-untyped-call]
    return {name: values[STATISTICS.index(name)] for name in want}


class _Statistics(torch.autograd.Function):
    """No `jvp` (it would forbid compile) and no `once_differentiable` (it drops second
    derivatives silently); forward mode raises torch's own error.
    """

    @staticmethod
    def forward(*args: Any) -> tuple[Tensor | None, ...]:
        problem, want, route = Problem(*args[:-2]), set(args[-2]), args[-1]
        # What backward needs beside the upstream gradients.
        want.add("logsumexp")
        if "confidence" in want:
            want.add("prediction")
        found = route.forward(problem, frozenset(want))
        return tuple(found.get(name) for name in STATISTICS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        problem = Problem(*inputs[:-2])
        out = dict(zip(STATISTICS, output, strict=True))
        if out["prediction"] is not None:
            ctx.mark_non_differentiable(out["prediction"])
        ctx.set_materialize_grads(False)
        ctx.options = problem[7:]
        ctx.route = inputs[-1]
        ctx.save_for_backward(*problem[:7], *output)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        problem = Problem(*saved[:7], *ctx.options)
        out = dict(zip(STATISTICS, saved[7:], strict=True))
        grads = dict(zip(STATISTICS, upstream, strict=True))
        if all(grad is None for grad in upstream):
            return (None,) * (len(Problem._fields) + 2)
        # True only under create_graph (or torch.func): then every step must be out of place.
        if torch.is_grad_enabled():
            if problem.class_range is not None:
                raise RuntimeError(
                    "A second derivative was asked for through class_range, which has none: give "
                    "the whole head to one rank."
                )
            sums = twice.backward(problem, grads, out["prediction"])
        else:
            stats = {name: value for name, value in out.items() if value is not None}
            k = coefficients(grads, stats, target_mass(problem.target), problem.all_classes)
            sums = ctx.route.backward(problem, stats, k, ctx.needs_input_grad[:4])
        return (*sums, *(None,) * (len(Problem._fields) + 2 - len(sums)))


def by_chunks(passes: Passes) -> Route:
    """The route that makes the logits of one chunk at a time, in both directions."""

    def forward(problem: Problem, want: frozenset[str]) -> dict[str, Tensor]:
        z: Tensor | None = None
        parts = []
        for chunk in chunks(problem, passes.chunk_rows(problem)):
            z = passes.logits(chunk, z)
            parts.append(passes.statistics(z, chunk, want))
        return {name: torch.cat([part[name] for part in parts]) for name in want}

    def backward(
        problem: Problem, stats: dict[str, Tensor], k: Coefficients, needs: tuple[bool, ...]
    ) -> tuple[Tensor | None, ...]:
        into = Gradients(problem, needs)
        z: Tensor | None = None
        start = 0
        for chunk in chunks(problem, passes.chunk_rows(problem)):
            stop = start + chunk.source.shape[0]
            part = {name: value[start:stop] for name, value in stats.items()}
            z = passes.logits(chunk, z)
            into.add(chunk, passes.gradient(z, chunk, part, k.rows(start, stop), into.head_bias))
            start = stop
        return into.result()

    return Route(forward, backward)


def chunk_statistics(
    raw: Tensor, chunk: Problem, want: frozenset[str], spend: bool = False
) -> dict[str, Tensor]:
    """Statistics of a chunk from `chunk_logits`: only read, or with `spend` exponentiated."""
    parts = [
        block_statistics(block_logits(z, rows), rows.target, want, spend)
        for z, rows in blocks(raw, chunk)
    ]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def logits_to_gradient(
    raw: Tensor,
    chunk: Problem,
    stats: dict[str, Tensor],
    k: Coefficients,
    bias_grad: Tensor | None,
) -> Tensor:
    """Overwrite `chunk_logits` with the gradient with respect to ``hidden W^T``."""
    if chunk.logits is not None:  # the caller's
        raw = raw.clone(memory_format=torch.contiguous_format)
    for z, rows, own, factors in block_parts(raw, chunk, stats, k):
        dz = block_logits(z, rows)
        # tanh' = 1 - tanh^2, from the capped logits, which the next step overwrites.
        square = None
        if rows.softcap is not None:
            square = dz.square()
            if rows.temperature is not None:
                square.mul_(rows.temperature[:, None].square())
        dz = block_gradient_(dz, own["logsumexp"], factors, rows.target, own.get("prediction"))
        if square is not None:
            assert rows.softcap is not None
            dz.addcmul_(dz, square, value=-1 / rows.softcap**2)
        undress_(dz, rows, bias_grad)
        if dz is not z:
            z.copy_(dz)
    return raw


def undress_(dz: Tensor, rows: Problem, bias_grad: Tensor | None) -> None:
    """From a gradient inside temperature and scale to one of ``hidden W^T``, in place."""
    if rows.temperature is not None:
        dz.div_(rows.temperature[:, None])
    if rows.logit_scale != 1.0:
        dz.mul_(rows.logit_scale)
    if bias_grad is not None:
        bias_grad.add_(dz.sum(0))


def chunk_rows(problem: Problem) -> int:
    """Rows of a chunk: many enough that re-reading the head costs little."""
    return max(MIN_CHUNK_ROWS, CHUNK_BYTES // (4 * max(1, problem.classes)))


def chunks(problem: Problem, size: int) -> Iterator[Problem]:
    """The problem in equal pieces of at most ``size`` rows; at least one, even without rows, which
    keeps the graph connected.
    """
    n = problem.source.shape[0]
    if problem.logits is not None:  # no matrix product: nothing to gain from pieces
        size = max(n, 1)
    else:  # cast the head once, not once a chunk
        problem = problem._replace(head_weight=problem.head())
        size = -(-n // max(1, -(-n // size)))
    size = max(size, 1)
    for start in range(0, max(n, 1), size):
        chunk = problem.rows(start, min(start + size, n))
        yield chunk if chunk.hidden is None else chunk._replace(hidden=chunk.states())


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


def block_parts(
    raw: Tensor, chunk: Problem, stats: dict[str, Tensor], k: Coefficients
) -> Iterator[tuple[Tensor, Problem, dict[str, Tensor], Coefficients]]:
    """`blocks` of a chunk, each with its rows of the statistics and the coefficients."""
    start = 0
    for z, rows in blocks(raw, chunk):
        stop = start + z.shape[0]
        own = {name: value[start:stop] for name, value in stats.items()}
        yield z, rows, own, k.rows(start, stop)
        start = stop


def chunk_logits(chunk: Problem, used: Tensor | None) -> Tensor:
    """A chunk of logits ``(n, V)``, over ``used`` if given; or the given ones.

    Finished in place where that rounds nothing (see `finished`), so that soft-cap and the like are
    not paid again by the pass that makes the gradient.
    """
    if chunk.logits is not None:
        return chunk.logits
    assert chunk.hidden is not None
    if used is None or torch.compiler.is_compiling():
        z = chunk.hidden @ chunk.head().t()
    else:
        z = torch.mm(chunk.hidden, chunk.head().t(), out=used[: len(chunk.hidden)])
    if finished(chunk):
        for block, rows in blocks(z, chunk):
            _finish(block, rows)
    return z


def finished(chunk: Problem) -> bool:
    """Whether `chunk_logits` are final: ours to write to, and wide enough to hold them."""
    ours = chunk.logits is None and chunk.source.dtype == chunk.compute_dtype
    return ours and not torch.compiler.is_compiling()


def block_logits(z: Tensor, rows: Problem) -> Tensor:
    """Finished logits of a block: what `materialise` does, without graph; z itself if unchanged."""
    if finished(rows):
        return z
    dressed = rows.head_bias is not None or rows.logit_scale != 1.0 or rows.softcap is not None
    changed = dressed or rows.temperature is not None or rows.valid is not None
    out = z.to(rows.compute_dtype, copy=changed)
    # A matrix product of finite numbers holds no -inf.
    return _finish(out, rows) if rows.logits is None else _finish(out, rows).clamp(min=LOWEST)


def _finish(z: Tensor, rows: Problem) -> Tensor:
    """Bias, scale, soft-cap, temperature and rows that do not count, in place."""
    cap = rows.softcap
    scale = rows.logit_scale if cap is None else 2 * rows.logit_scale / cap
    if rows.head_bias is not None:
        bias = rows.head_bias.to(z.dtype).clamp(min=LOWEST)
        torch.add(bias * scale, z, alpha=scale, out=z)
    elif scale != 1.0:
        z.mul_(scale)
    if cap is not None:
        # tanh x = 2 sigmoid(2 x) - 1 takes a third of tanh's time, and errs by 1e-7 of the cap.
        z.sigmoid_().mul_(2 * cap).sub_(cap)
    if rows.temperature is not None:
        z.div_(rows.temperature[:, None])
    if rows.valid is not None:
        z.masked_fill_(~rows.valid[:, None], 0.0)
    return z


TORCH = Passes(chunk_logits, chunk_statistics, logits_to_gradient, chunk_rows)
BY_CHUNKS = by_chunks(TORCH)
