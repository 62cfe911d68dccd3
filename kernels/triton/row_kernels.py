# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""One Triton program a row of logits: its statistics, or its dlogits in place.

Both read the row once. The running maximum is kept per LANE adjacent elements, one 16-byte load,
not per element: that needs 31 instead of 53 instructions an element with entropy on sm_90, and the
obvious form is bound by instruction issue, not by memory.
"""

from __future__ import annotations

import triton
import triton.language as tl

from .common import (
    LOG2E,
    LOWEST,
    NO_CLASS,
    PAD,
    START,
    final_logits,
    inverse,
    nan_without_classes,
    number,
)

# mypy: disable-error-code="no-untyped-def,no-untyped-call"


@triton.jit
def read(
    z_ptr, bias_ptr, offs, V, scale, softcap, inv_temperature,
    LIFT: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Final logits, float32; `inv_temperature` is 1 / temperature."""
    if MASK:
        z = tl.load(z_ptr + offs, mask=offs < V, other=0.0).to(tl.float32)
    else:
        z = tl.load(z_ptr + offs).to(tl.float32)
    if bias_ptr is not None:
        if MASK:
            z += tl.load(bias_ptr + offs, mask=offs < V, other=0.0).to(tl.float32)
        else:
            z += tl.load(bias_ptr + offs).to(tl.float32)
    return final_logits(z, scale, softcap, inv_temperature, LIFT)


@triton.jit
def _accumulate(
    m, s, t, q, total, u, mass, weighted, weight_mass, best,
    z_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, scale, softcap, inv_temperature,
    ENTROPY: tl.constexpr, MEAN: tl.constexpr, COLLISION: tl.constexpr, PREDICTION: tl.constexpr,
    LIFT: tl.constexpr, BLOCK: tl.constexpr, LANE: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """Add BLOCK logits to the running statistics, each of shape (BLOCK / LANE,)."""
    lanes = tl.arange(0, BLOCK // LANE)
    offs = start + lanes[:, None] * LANE + tl.arange(0, LANE)[None, :]
    z = read(z_ptr, bias_ptr, offs, V, scale, softcap, inv_temperature, LIFT, MASK)
    if MASK:  # after the soft-cap, which would make a finite class of a padded one
        z = tl.where(offs < V, z, PAD)
    peak = tl.max(z, axis=1)
    new = tl.maximum(m, peak)
    # Subtract, then multiply: large logits times log2 e would round first.
    d = z - new[:, None]
    e = tl.exp2(d * LOG2E)
    step = m - new
    r = tl.exp2(step * LOG2E)
    if ENTROPY:  # of z minus the running maximum: the offset of large logits would cancel
        t = r * (t + step * s) + tl.sum(e * d, axis=1)
    if COLLISION:
        q = q * (r * r) + tl.sum(e * e, axis=1)
    s = s * r + tl.sum(e, axis=1)
    if MEAN:  # of z minus the running maximum too, of which each lane has seen so many
        seen = (start // BLOCK) * LANE
        total += step * seen + tl.sum(tl.where(offs < V, d, 0.0) if MASK else d, axis=1)
    if weight_ptr is not None:
        w = tl.load(weight_ptr + offs, mask=offs < V, other=0.0)
        weighted += weight_mass * step + tl.sum(w * d, axis=1)
        weight_mass += tl.sum(w, axis=1)
    if soft_ptr is not None:
        w = tl.load(soft_ptr + offs, mask=offs < V, other=0.0).to(tl.float32)
        u += mass * step + tl.sum(w * d, axis=1)
        mass += tl.sum(w, axis=1)
    if PREDICTION:  # without a branch on "any better": that spills
        first = tl.min(tl.where(z == peak[:, None], offs, NO_CLASS), axis=1)
        best = tl.where(peak > m, first, best)
    return new, s, t, q, total, u, mass, weighted, weight_mass, best


@triton.jit
def row_statistics(
    z_ptr, z_stride, bias_ptr, temperature_ptr, target_ptr, soft_ptr, soft_stride, weight_ptr,
    valid_ptr, max_logit_ptr, sum_exp_ptr, log_prob_ptr, logsumexp_ptr, entropy_ptr,
    mean_logit_ptr, mean_log_prob_ptr, weighted_log_prob_ptr, collision_ptr, confidence_ptr,
    prediction_ptr, V, scale, softcap,
    LIFT: tl.constexpr, BLOCK: tl.constexpr, LANE: tl.constexpr,
):  # fmt: skip
    """Statistics of row ``program_id(0)``; an output that is None is not computed.

    A row that does not count is not read, and gets the statistics of equal logits: finite under
    any function of them.
    """
    row = tl.program_id(0).to(tl.int64)  # before multiplying: N V passes 2^31
    z_ptr += row * z_stride
    if soft_ptr is not None:
        soft_ptr += row * soft_stride
    inv_temperature = inverse(number(temperature_ptr, row))
    count = V
    if valid_ptr is not None:
        count = tl.where(tl.load(valid_ptr + row) != 0, V, 0)
    ENTROPY: tl.constexpr = entropy_ptr is not None
    MEAN: tl.constexpr = (mean_logit_ptr is not None) or (mean_log_prob_ptr is not None)
    COLLISION: tl.constexpr = collision_ptr is not None
    PREDICTION: tl.constexpr = prediction_ptr is not None

    m = tl.full((BLOCK // LANE,), START, tl.float32)
    s = tl.zeros((BLOCK // LANE,), tl.float32)
    t, q, total, u, mass, weighted, weight_mass = s, s, s, s, s, s, s
    best = tl.zeros((BLOCK // LANE,), tl.int32)
    whole = (count // BLOCK) * BLOCK
    for start in range(0, whole, BLOCK):
        m, s, t, q, total, u, mass, weighted, weight_mass, best = _accumulate(
            m, s, t, q, total, u, mass, weighted, weight_mass, best,
            z_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, scale, softcap, inv_temperature,
            ENTROPY, MEAN, COLLISION, PREDICTION, LIFT, BLOCK, LANE, False,
        )  # fmt: skip
    for start in range(whole, count, BLOCK):  # the ragged end, at most once
        m, s, t, q, total, u, mass, weighted, weight_mass, best = _accumulate(
            m, s, t, q, total, u, mass, weighted, weight_mass, best,
            z_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, scale, softcap, inv_temperature,
            ENTROPY, MEAN, COLLISION, PREDICTION, LIFT, BLOCK, LANE, True,
        )  # fmt: skip

    skip = count == 0
    top = tl.max(m, axis=0)
    step = m - top
    r = tl.exp2(step * LOG2E)
    sum_e = tl.where(skip, V * 1.0, nan_without_classes(tl.sum(s * r, axis=0), top))
    log_s = tl.log(sum_e)
    top = tl.where(skip, 0.0, nan_without_classes(top, top))
    tl.store(max_logit_ptr + row, top)
    tl.store(sum_exp_ptr + row, sum_e)
    if logsumexp_ptr is not None:
        tl.store(logsumexp_ptr + row, top + log_s)
    if log_prob_ptr is not None:
        if soft_ptr is not None:
            log_p = tl.sum(u + mass * step, axis=0) - tl.sum(mass, axis=0) * log_s
        else:
            y = tl.where(skip, 0, tl.load(target_ptr + row))
            z = read(z_ptr, bias_ptr, y, V, scale, softcap, inv_temperature, LIFT, False)
            # Rounding must not make p more than 1: (1 - p)^gamma would be NaN.
            z = tl.where(skip | (z > top), top, z)
            log_p = (z - top) - log_s
        tl.store(log_prob_ptr + row, log_p)
    if ENTROPY:
        tl.store(entropy_ptr + row, log_s - tl.sum(r * (t + step * s), axis=0) / sum_e)
    if MEAN:
        rest = count - whole - tl.arange(0, BLOCK // LANE) * LANE
        seen = (whole // BLOCK) * LANE + tl.minimum(tl.maximum(rest, 0), LANE)
        mean = tl.sum(total + step * seen, axis=0) / V
        if mean_logit_ptr is not None:
            tl.store(mean_logit_ptr + row, top + mean)
        if mean_log_prob_ptr is not None:
            tl.store(mean_log_prob_ptr + row, mean - log_s)
    if weighted_log_prob_ptr is not None:
        all_weight = tl.sum(weight_mass, axis=0)
        shifted = tl.sum(weighted + weight_mass * step, axis=0)
        tl.store(weighted_log_prob_ptr + row, (shifted - all_weight * log_s) / V)
    if COLLISION:
        squares = tl.where(skip, V * 1.0, tl.sum(q * r * r, axis=0))
        tl.store(collision_ptr + row, squares / (sum_e * sum_e))
    if confidence_ptr is not None:
        tl.store(confidence_ptr + row, 1 / sum_e)
    if PREDICTION:
        first = tl.min(tl.where(m == tl.max(m, axis=0), best, NO_CLASS), axis=0)
        tl.store(prediction_ptr + row, first.to(tl.int64))


@triton.jit
def dlogits(
    z, offs, top, a, b, c, d, e, f, g, y, argmax, w, weight, slope, cap_per_z, LIFT: tl.constexpr
):  # fmt: skip
    """``exp x (a + b x + c exp x) + d 1[target] + e + f 1[argmax] + g weight``, x = z - top, back
    to the raw logits. See `Coefficients.of_exponentials`.

    `slope` is scale / temperature and `cap_per_z` takes z to its tanh: everything comes from z,
    so that one tile is alive and not two.
    """
    dz = tl.zeros_like(z)
    if (a is not None) or (b is not None) or (c is not None):
        x = z - top
        exp_x = tl.exp2(x * LOG2E)
        if a is not None:
            dz += a
        if b is not None:
            dz += b * x
        if c is not None:
            dz += c * exp_x
        dz *= exp_x
    if e is not None:
        dz += e
    if d is not None:
        dz += d * w if w is not None else tl.where(offs == y, d, 0.0)
    if f is not None:
        dz += tl.where(offs == argmax, f, 0.0)
    if g is not None:
        dz += g * weight
    if cap_per_z is not None:
        tanh = z * cap_per_z
        dz *= 1 - tanh * tanh
    if slope is not None:
        dz *= slope
    if LIFT:  # a masked class sends no gradient, unless the row is NaN for having no other
        dz = tl.where(z == LOWEST + 0.0 * top, 0.0, dz)
    return dz


@triton.jit
def outer_slope(scale, temperature):
    """What scale and temperature multiply a gradient by, or None."""
    if temperature is None and scale is None:
        return
    elif temperature is None:
        return scale
    elif scale is None:
        return 1.0 / temperature
    else:
        return scale / temperature


@triton.jit
def per_cap(softcap, temperature):
    """What takes a final logit to the tanh in it, or None without soft-cap."""
    if softcap is None:
        return
    elif temperature is None:
        return 1.0 / softcap
    else:
        return temperature / softcap


@triton.jit
def _rewrite(
    z_ptr, out_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, counts, top, a, b, c, d, e, f, g,
    y, argmax, scale, softcap, inv_temperature, slope, cap_per_z,
    LIFT: tl.constexpr, BLOCK: tl.constexpr, MASK: tl.constexpr,
):  # fmt: skip
    """BLOCK logits into dlogits. Only the ragged end is masked: a mask forbids wide loads."""
    offs = start + tl.arange(0, BLOCK)
    if counts:
        z = read(z_ptr, bias_ptr, offs, V, scale, softcap, inv_temperature, LIFT, MASK)
        w = None
        if soft_ptr is not None:
            w = tl.load(soft_ptr + offs, mask=offs < V, other=0.0).to(tl.float32)
        weight = None
        if weight_ptr is not None:
            weight = tl.load(weight_ptr + offs, mask=offs < V, other=0.0)
        dz = dlogits(
            z, offs, top, a, b, c, d, e, f, g, y, argmax, w, weight, slope, cap_per_z, LIFT
        )  # fmt: skip
    else:
        dz = tl.zeros((BLOCK,), tl.float32)
    if MASK:
        tl.store(out_ptr + offs, dz.to(out_ptr.dtype.element_ty), mask=offs < V)
    else:
        tl.store(out_ptr + offs, dz.to(out_ptr.dtype.element_ty))


@triton.jit
def row_gradient(
    z_ptr, z_stride, out_ptr, out_stride, bias_ptr, temperature_ptr, target_ptr, soft_ptr,
    soft_stride, weight_ptr, valid_ptr, max_logit_ptr, prediction_ptr,
    a_ptr, b_ptr, c_ptr, d_ptr, e_ptr, f_ptr, g_ptr, V, scale, softcap,
    LIFT: tl.constexpr, BLOCK: tl.constexpr,
):  # fmt: skip
    """dlogits of row ``program_id(0)`` into `out_ptr`, which may be `z_ptr`.

    In place is safe: no element reads another. The class of the target is compared, not written
    afterwards, so that p - 1 is rounded once.
    """
    row = tl.program_id(0).to(tl.int64)
    z_ptr += row * z_stride
    out_ptr += row * out_stride
    if soft_ptr is not None:
        soft_ptr += row * soft_stride
    top = tl.load(max_logit_ptr + row)
    temperature = number(temperature_ptr, row)
    inv_temperature = inverse(temperature)
    slope = outer_slope(scale, temperature)
    cap_per_z = per_cap(softcap, temperature)
    a = number(a_ptr, row)  # one by one: Triton before 3.8 has no tuple with None in it
    b = number(b_ptr, row)
    c = number(c_ptr, row)
    d = number(d_ptr, row)
    e = number(e_ptr, row)
    f = number(f_ptr, row)
    g = number(g_ptr, row)
    y = number(target_ptr, row)
    argmax = number(prediction_ptr, row)
    counts = True
    if valid_ptr is not None:
        counts = tl.load(valid_ptr + row) != 0
    whole = (V // BLOCK) * BLOCK
    for start in range(0, whole, BLOCK):
        _rewrite(
            z_ptr, out_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, counts, top, a, b, c, d, e,
            f, g, y, argmax, scale, softcap, inv_temperature, slope, cap_per_z, LIFT, BLOCK, False,
        )  # fmt: skip
    for start in range(whole, V, BLOCK):
        _rewrite(
            z_ptr, out_ptr, bias_ptr, soft_ptr, weight_ptr, start, V, counts, top, a, b, c, d, e,
            f, g, y, argmax, scale, softcap, inv_temperature, slope, cap_per_z, LIFT, BLOCK, True,
        )  # fmt: skip
