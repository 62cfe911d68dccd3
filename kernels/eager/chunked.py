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

from ..logits import (
    apply_logit_options_,
    backward_logit_options_,
    has_logit_options,
    squared_tanh,
)
from ..problem import LOWEST, MAX_AND_SUM, STATISTICS, Problem
from ..row_math import (
    Coefficients,
    Given,
    block_gradient_,
    block_statistics,
    coefficients,
    target_mass,
)
from ..valid_rows import zero_ignored_rows
from . import double_backward
from .gradients import Gradients, transformed

CHUNK_BYTES = 96 * 2**20  # of float32 logits; 786 rows at 32,000 classes
BLOCK_BYTES = 4 * 2**20
MIN_CHUNK_ROWS = 128


class Passes(NamedTuple):
    """What is done to one chunk; plain torch here, fused kernels in `triton/fast_keep.py`.

    The loop over chunks, the coefficients, the sums of gradients and the branch for second
    derivatives are the same for both.
    """

    #: (chunk, a used-up chunk of logits or None) -> hidden W^T ``(n, V)``, over that if given; or
    #: the given logits. A new allocation a chunk would cost its page faults each time.
    logits: Callable[[Problem, Tensor | None], Tensor]
    statistics: Callable[[Tensor, Problem, frozenset[str]], dict[str, Tensor]]
    #: (raw logits, chunk, statistics, coefficients of exponentials, bias gradient to add to) ->
    #: dlogits (n, V), in place of the raw logits unless the caller owns those; or a tensor and the
    #: factor (n, 1) that makes them of it
    gradient: Callable[
        [Tensor, Problem, dict[str, Tensor], Coefficients, Tensor | None],
        Tensor | tuple[Tensor, Tensor],
    ]
    chunk_rows: Callable[[Problem], int]


class Route(NamedTuple):
    """The two halves of `statistics`; by chunks here, without any logits in `triton/lean.py`.

    The first half makes `MAX_AND_SUM` too.
    """

    forward: Callable[[Problem, frozenset[str]], dict[str, Tensor]]
    #: (problem, statistics, coefficients of exponentials, which of logits, hidden, head weight and
    #: bias need a gradient) -> those gradients
    backward: Callable[
        [Problem, dict[str, Tensor], Coefficients, tuple[bool, ...]], tuple[Tensor | None, ...]
    ]


def statistics(
    problem: Problem, want: tuple[str, ...], route: Route | None = None
) -> dict[str, Tensor]:
    """Every wanted statistic, ``(N,)`` each, with graph. Two passes; differentiable twice."""
    values = _Statistics.apply(  # type: ignore[no-untyped-call]
        *problem.tensors(), problem.options(), want, route or BY_CHUNKS
    )
    return {name: values[OUTPUTS.index(name)] for name in want}


#: What the autograd function returns; the last two are for its backward pass alone.
OUTPUTS = (*STATISTICS, *MAX_AND_SUM)


class _Statistics(torch.autograd.Function):
    """No `jvp` (it would forbid compile) and no `once_differentiable` (it drops second
    derivatives silently); forward mode raises torch's own error.
    """

    @staticmethod
    def forward(
        logits: Tensor | None,
        hidden: Tensor | None,
        head_weight: Tensor | None,
        head_bias: Tensor | None,
        target: Tensor | None,
        valid: Tensor | None,
        temperature: Tensor | None,
        class_weight: Tensor | None,
        options: dict[str, Any],
        want: tuple[str, ...],
        route: Route,
    ) -> tuple[Tensor | None, ...]:
        # By name, not `*args`: compiled code binds them where nothing needs a gradient.
        sources = logits, hidden, head_weight, head_bias
        problem = Problem(*sources, target, valid, temperature, class_weight, **options)
        names = set(want)
        if "confidence" in names:
            names.add("prediction")  # which its gradient needs
        stats: dict[str, Tensor] = route.forward(problem, frozenset(names))
        return tuple(stats.get(name) for name in OUTPUTS)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor | None, ...]) -> None:
        *tensors, options, _, route = inputs
        out = dict(zip(OUTPUTS, output, strict=True))
        constant = [out[name] for name in ("prediction", *MAX_AND_SUM)]
        ctx.mark_non_differentiable(*(x for x in constant if x is not None))
        ctx.set_materialize_grads(False)
        ctx.options, ctx.route, ctx.inputs = options, route, len(inputs)
        ctx.save_for_backward(*output, *tensors)

    @staticmethod
    def backward(ctx: Any, *upstream: Tensor | None) -> tuple[Tensor | None, ...]:
        saved = ctx.saved_tensors
        problem = Problem(*saved[len(OUTPUTS) :], **ctx.options)
        out = dict(zip(OUTPUTS, saved, strict=False))
        grads = dict(zip(OUTPUTS, upstream, strict=True))
        if all(grad is None for grad in upstream):
            nothing: tuple[Tensor | None, ...] = (None,) * ctx.inputs
            return nothing
        # Under create_graph, torch.func and batched gradients every step must be out of place.
        if torch.is_grad_enabled() or transformed(upstream):
            if problem.class_range is not None:
                raise RuntimeError(
                    "A second derivative (or one of torch.func) was asked for through class_range, "
                    "which has none: give the whole head to one rank."
                )
            sums = double_backward.backward(problem, grads, out["prediction"])
        else:
            stats = {name: value for name, value in out.items() if value is not None}
            mass, weight = target_mass(problem.target), problem.class_weight
            k = coefficients(grads, stats, mass, problem.all_classes, weight)
            k = k.of_exponentials(stats["sum_exp"])
            needs = ctx.needs_input_grad[: len(problem.sources())]
            sums = ctx.route.backward(problem, stats, k, needs)
        return (*sums, *(None,) * (ctx.inputs - len(sums)))

    @staticmethod
    def vmap(info: Any, in_dims: tuple[Any, ...], *inputs: Any) -> tuple[Any, Any]:
        """A batch of problems is one with more rows; where each has a head of its own, a loop."""
        *tensors, options, want, route = inputs
        given = dict(zip(Problem._fields, tensors, strict=False))
        dims = dict(zip(Problem._fields, in_dims[: len(tensors)], strict=False))
        size: int = info.batch_size
        if any(dims[name] is not None for name in ("head_weight", "head_bias", "class_weight")):
            each = [
                _Statistics.apply(  # type: ignore[no-untyped-call]
                    *(x if dims[n] is None else x.select(dims[n], i) for n, x in given.items()),
                    options,
                    want,
                    route,
                )
                for i in range(size)
            ]
            columns = zip(*each, strict=True)
            out = tuple(None if xs[0] is None else torch.stack(xs) for xs in columns)
        else:
            for name in ("logits", "hidden", "target", "valid", "temperature"):
                x, dim = given[name], dims[name]
                if x is not None:
                    x = x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
                    given[name] = x.reshape(-1, *x.shape[2:])
            flat = _Statistics.apply(  # type: ignore[no-untyped-call]
                *given.values(), options, want, route
            )
            out = tuple(None if x is None else x.reshape(size, -1) for x in flat)
        return out, tuple(None if x is None else 0 for x in out)


def by_chunks(passes: Passes) -> Route:
    """The route that makes the logits of one chunk at a time, in both directions."""

    def forward(problem: Problem, want: frozenset[str]) -> dict[str, Tensor]:
        z: Tensor | None = None
        parts = []
        for chunk in chunks(problem, passes.chunk_rows(problem)):
            z = passes.logits(chunk, z)
            parts.append(passes.statistics(z, chunk, want))
        return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}

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
    raw: Tensor, chunk: Problem, want: frozenset[str], inplace: bool = False
) -> dict[str, Tensor]:
    """Statistics of a chunk from `chunk_logits`: only read, or with `inplace` exponentiated."""
    parts = [
        block_statistics(block_logits(z, rows), rows.target, rows.class_weight, want, inplace)
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
        square = squared_tanh(dz, rows)  # before the next step overwrites the logits
        dz = block_gradient_(dz, own["max_logit"], factors, given_of(rows, own))
        backward_logit_options_(dz, rows, square, bias_grad)
        if dz is not z:
            z.copy_(dz)
    return raw


def given_of(rows: Problem, stats: dict[str, Tensor]) -> Given:
    """What a gradient reads of these rows beside their logits."""
    return Given(rows.target, stats.get("prediction"), rows.class_weight)


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
        if chunk.hidden is not None:
            chunk = chunk._replace(hidden=zero_ignored_rows(chunk.hidden, chunk.valid))
        yield chunk


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

    Made final in place where that rounds nothing (see `is_final`), so that soft-cap and the like
    are not paid again by the pass that makes the gradient.
    """
    if chunk.logits is not None:
        return chunk.logits
    assert chunk.hidden is not None
    if used is None or torch.compiler.is_compiling():
        z = chunk.hidden @ chunk.head().t()
    else:
        z = torch.mm(chunk.hidden, chunk.head().t(), out=used[: len(chunk.hidden)])
    if is_final(chunk):
        for block, rows in blocks(z, chunk):
            apply_logit_options_(block, rows)
    return z


def is_final(chunk: Problem) -> bool:
    """Whether `chunk_logits` are final: ours to write to, and wide enough to hold them."""
    ours = chunk.logits is None and chunk.source.dtype == chunk.compute_dtype
    return ours and not torch.compiler.is_compiling()


def block_logits(z: Tensor, rows: Problem) -> Tensor:
    """Final logits of a block: what `materialise` does, without graph; z itself if unchanged."""
    if is_final(rows):
        return z
    changed = has_logit_options(rows) or rows.valid is not None
    out = apply_logit_options_(z.to(rows.compute_dtype, copy=changed), rows)
    # A matrix product of finite numbers holds no -inf.
    return out if rows.logits is None else out.clamp(min=LOWEST)


TORCH = Passes(chunk_logits, chunk_statistics, logits_to_gradient, chunk_rows)
BY_CHUNKS = by_chunks(TORCH)
