# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Mode lean, forward: statistics of hidden times head without logits in memory.

A program owns a block of rows and a span of classes, keeps running statistics in registers over
the span's tiles, and stores them once per (span, row). A second kernel merges spans in order: no
locks, no atomics, the same bits every run. The maximum is subtracted before the factor of base 2
is applied, or logits that are all large would round first.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import (
    LOG2E,
    NO_CLASS,
    PAD,
    START,
    final_logits,
    nan_without_classes,
)
from .lean_tile import swizzle_pid, tile_logits

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@triton.jit
def span_statistics(
    h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, bias_ptr, temperature_ptr, num_valid_ptr,
    m_ptr, s_ptr, t_ptr, q_ptr, total_ptr, best_ptr, N, V, D, span, spans, scale, softcap,
    BM: tl.constexpr, BV: tl.constexpr, BD: tl.constexpr, EVEN_D: tl.constexpr,
    GROUP: tl.constexpr, PRECISION: tl.constexpr, USE_TMA: tl.constexpr,
):  # fmt: skip
    """Partial statistics ``(spans, N)``; `span` classes a span, a multiple of BV.

    `num_valid_ptr` holds the number of rows that count, which come first: blocks past it do
    nothing.
    """
    row_block, part = swizzle_pid(tl.program_id(0), tl.cdiv(N, BM), spans, GROUP)
    row0 = row_block * BM
    rows = row0 + tl.arange(0, BM)
    inv_temperature = None
    if temperature_ptr is not None:
        inv_temperature = 1.0 / tl.load(temperature_ptr + rows, mask=rows < N, other=1.0)[:, None]
    LIFT: tl.constexpr = bias_ptr is not None

    m = tl.full((BM,), START, tl.float32)
    s = tl.zeros((BM,), tl.float32)
    t, q, total = s, s, s
    best = tl.zeros((BM,), tl.int32)
    col_end = tl.minimum(part * span + span, V)
    if num_valid_ptr is not None:
        col_end = tl.where(row0 < tl.load(num_valid_ptr), col_end, 0)
    for col0 in range(part * span, col_end, BV):
        x = tile_logits(
            h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, row0, col0, N, V, D,
            BM, BV, BD, EVEN_D, PRECISION, None, USE_TMA,
        )  # fmt: skip
        cols = col0 + tl.arange(0, BV)
        inside = (cols < V)[None, :]
        if bias_ptr is not None:
            x += tl.load(bias_ptr + cols, mask=cols < V, other=0.0)[None, :]
        x = final_logits(x, scale, softcap, inv_temperature, LIFT)
        x = tl.where(inside, x, PAD)  # after the soft-cap, which would make it a finite class
        peak = tl.max(x, axis=1)
        if best_ptr is not None:  # without a branch on "any better": that spills
            first = tl.min(tl.where(x == peak[:, None], cols[None, :], NO_CLASS), axis=1)
            best = tl.where(peak > m, first, best)
        new = tl.maximum(m, peak)
        step = m - new
        r = tl.exp2(step * LOG2E)
        x = x - new[:, None]
        e = tl.exp2(x * LOG2E)
        if t_ptr is not None:
            t = r * (t + step * s) + tl.sum(e * x, axis=1)
        if q_ptr is not None:
            q = q * (r * r) + tl.sum(e * e, axis=1)
        s = s * r + tl.sum(e, axis=1)
        if total_ptr is not None:  # relative to the running maximum too
            seen = col0 - part * span
            total += step * seen + tl.sum(tl.where(inside, x, 0.0), axis=1)
        m = new

    here = tl.cast(part, tl.int64) * N + rows
    inside_rows = rows < N
    tl.store(m_ptr + here, m, mask=inside_rows)
    tl.store(s_ptr + here, s, mask=inside_rows)
    if t_ptr is not None:
        tl.store(t_ptr + here, t, mask=inside_rows)
    if q_ptr is not None:
        tl.store(q_ptr + here, q, mask=inside_rows)
    if total_ptr is not None:
        tl.store(total_ptr + here, total, mask=inside_rows)
    if best_ptr is not None:
        tl.store(best_ptr + here, best, mask=inside_rows)


@triton.jit
def merge_spans(
    m_ptr, s_ptr, t_ptr, q_ptr, total_ptr, best_ptr, z_target_ptr, valid_ptr,
    max_logit_ptr, sum_exp_ptr, log_prob_ptr, logsumexp_ptr, entropy_ptr, mean_logit_ptr,
    mean_log_prob_ptr, collision_ptr, confidence_ptr, prediction_ptr, N, V, span, spans,
    ROWS: tl.constexpr,
):  # fmt: skip
    """Partial statistics ``(spans, N)`` into statistics ``(N,)``, always in the same order."""
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = rows < N
    m = tl.full((ROWS,), START, tl.float32)
    s = tl.zeros((ROWS,), tl.float32)
    t, q, total = s, s, s
    best = tl.zeros((ROWS,), tl.int32)
    for part in range(0, spans):
        here = tl.cast(part, tl.int64) * N + rows
        m1 = tl.load(m_ptr + here, mask=inside, other=START)
        s1 = tl.load(s_ptr + here, mask=inside, other=1.0)
        new = tl.maximum(m, m1)
        r, r1 = tl.exp2((m - new) * LOG2E), tl.exp2((m1 - new) * LOG2E)
        if t_ptr is not None:
            t1 = tl.load(t_ptr + here, mask=inside, other=0.0)
            t = r * (t + (m - new) * s) + r1 * (t1 + (m1 - new) * s1)
        if q_ptr is not None:
            q = q * (r * r) + tl.load(q_ptr + here, mask=inside, other=0.0) * (r1 * r1)
        if total_ptr is not None:
            seen = part * span
            total1 = tl.load(total_ptr + here, mask=inside, other=0.0)
            total1 += (m1 - new) * tl.minimum(span, V - seen)
            total += (m - new) * seen + total1
        if best_ptr is not None:
            best1 = tl.load(best_ptr + here, mask=inside, other=0)
            best = tl.where(m1 > m, best1, best)
        s = s * r + s1 * r1
        m = new

    # A row that does not count gets the statistics of equal logits: finite under any function.
    skip = rows < 0
    if valid_ptr is not None:
        skip = tl.load(valid_ptr + rows, mask=inside, other=0) == 0
    s = tl.where(skip, V * 1.0, nan_without_classes(s, m))
    log_s = tl.log(s)
    top = tl.where(skip, 0.0, nan_without_classes(m, m))
    tl.store(max_logit_ptr + rows, top, mask=inside)
    tl.store(sum_exp_ptr + rows, s, mask=inside)
    if logsumexp_ptr is not None:
        tl.store(logsumexp_ptr + rows, top + log_s, mask=inside)
    if log_prob_ptr is not None:
        z = tl.load(z_target_ptr + rows, mask=inside, other=0.0)
        # Rounding must not make p more than 1: (1 - p)^gamma would be NaN.
        z = tl.where(skip | (z > top), top, z)
        tl.store(log_prob_ptr + rows, (z - top) - log_s, mask=inside)
    if entropy_ptr is not None:
        tl.store(entropy_ptr + rows, log_s - tl.where(skip, 0.0, t) / s, mask=inside)
    if total_ptr is not None:
        mean = tl.where(skip, 0.0, total) / V
        if mean_logit_ptr is not None:
            tl.store(mean_logit_ptr + rows, top + mean, mask=inside)
        if mean_log_prob_ptr is not None:
            tl.store(mean_log_prob_ptr + rows, mean - log_s, mask=inside)
    if collision_ptr is not None:
        tl.store(collision_ptr + rows, tl.where(skip, s, q) / (s * s), mask=inside)
    if confidence_ptr is not None:
        tl.store(confidence_ptr + rows, 1 / s, mask=inside)
    if prediction_ptr is not None:
        tl.store(prediction_ptr + rows, tl.where(skip, 0, best).to(tl.int64), mask=inside)


@triton.jit
def target_logits(
    h_ptr, h_stride, h_step, w_ptr, w_stride, w_step, bias_ptr, temperature_ptr, target_ptr,
    valid_ptr, out_ptr, N, D, scale, softcap, ROWS: tl.constexpr, BD: tl.constexpr,
):  # fmt: skip
    """The final logit of each row's target ``(N,)``: 2ND operations, against two or three
    instructions for every logit if `span_statistics` looked for it.
    """
    rows = tl.program_id(0).to(tl.int64) * ROWS + tl.arange(0, ROWS)
    inside = rows < N
    y = tl.load(target_ptr + rows, mask=inside, other=0)
    if valid_ptr is not None:
        y = tl.where(tl.load(valid_ptr + rows, mask=inside, other=0) != 0, y, 0)
    ks = tl.arange(0, BD)
    h_ptrs = h_ptr + rows[:, None] * h_stride + ks[None, :] * h_step
    w_ptrs = w_ptr + y.to(tl.int64)[:, None] * w_stride + ks[None, :] * w_step
    acc = tl.zeros((ROWS, BD), tl.float32)
    for k in range(0, D, BD):
        mask = inside[:, None] & (ks[None, :] < D - k)
        h = tl.load(h_ptrs, mask=mask, other=0.0).to(tl.float32)
        acc += h * tl.load(w_ptrs, mask=mask, other=0.0).to(tl.float32)
        h_ptrs += BD * h_step
        w_ptrs += BD * w_step
    z = tl.sum(acc, axis=1)
    if bias_ptr is not None:
        z += tl.load(bias_ptr + y, mask=inside, other=0.0)
    inv_temperature = None
    if temperature_ptr is not None:
        inv_temperature = 1.0 / tl.load(temperature_ptr + rows, mask=inside, other=1.0)
    z = final_logits(z, scale, softcap, inv_temperature, bias_ptr is not None)
    tl.store(out_ptr + rows, z, mask=inside)
