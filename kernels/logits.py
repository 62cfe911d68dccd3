# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The logits that a problem stands for: bias, scale, soft-cap and temperature, and back.

Here is the formula in plain torch, once with graph and once in place; `triton/common.py` has it for
the Triton kernels. Raw logits are ``hidden W^T`` (or the given ones); final logits are what the
softmax is taken of.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .problem import LOWEST, Problem
from .row_math import nan_without_classes
from .valid_rows import zero_ignored_rows, zero_ignored_rows_


def final_logits(problem: Problem) -> Tensor:
    """All final logits ``(N, V)``, differentiable, in the compute dtype; -inf stays -inf.

    Ignored rows are computed like any other.
    """
    if problem.logits is not None:
        raw = problem.logits
    else:
        assert problem.hidden is not None
        raw = problem.hidden @ problem.head().t()
    return _apply_logit_options(raw.to(problem.compute_dtype), problem)


def materialise(problem: Problem, *, part: bool = False) -> Tensor:
    """`final_logits` for a softmax: ignored rows are 0, -inf is `LOWEST`.

    Both before the softmax: a mask applied after it leaves NaN gradients behind. Rows are zeroed
    before the soft-cap too, because tanh of NaN has a NaN gradient. A row that has no class left is
    NaN, see `nan_without_classes`; unless these are `part` of the classes.
    """
    logits, hidden = (
        None if x is None else zero_ignored_rows(x, problem.valid)
        for x in (problem.logits, problem.hidden)
    )
    z = final_logits(problem._replace(logits=logits, hidden=hidden))
    z = zero_ignored_rows(z, problem.valid)
    masks = problem.logits is not None or problem.head_bias is not None
    if masks and not part and problem.classes:
        none_left = nan_without_classes(z.detach().amax(1)).isnan()
        # A product, so that the gradient is NaN as well.
        z = z * torch.where(none_left, torch.nan, 1.0).to(z.dtype)[:, None]
    return z.clamp(min=LOWEST)


def has_logit_options(problem: Problem) -> bool:
    """Whether final logits differ from raw ones."""
    given = (problem.head_bias, problem.softcap, problem.temperature)
    return problem.logit_scale != 1.0 or any(option is not None for option in given)


def _apply_logit_options(z: Tensor, problem: Problem) -> Tensor:
    """Raw logits into final ones, with graph."""
    if problem.head_bias is not None:
        z = z + problem.head_bias
    if problem.logit_scale != 1.0:
        z = z * problem.logit_scale
    if problem.softcap is not None:
        z = problem.softcap * torch.tanh(z / problem.softcap)
    if problem.temperature is not None:
        z = z / problem.temperature[:, None]
    return z


def apply_logit_options_(z: Tensor, rows: Problem) -> Tensor:
    """The same in place, without graph; ignored rows become 0."""
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
    return zero_ignored_rows_(z, rows.valid)


def squared_tanh(z: Tensor, rows: Problem) -> Tensor | None:
    """``cap^2 tanh^2`` of final logits, for `backward_logit_options_`; None without soft-cap."""
    if rows.softcap is None:
        return None
    square = z.square()
    return square if rows.temperature is None else square.mul_(rows.temperature[:, None].square())


def backward_logit_options_(
    dz: Tensor, rows: Problem, square: Tensor | None, bias_grad: Tensor | None
) -> None:
    """From the gradient of final logits to that of raw ones, in place.

    Args:
        dz: ``(n, V)``.
        square: of `squared_tanh`, taken before dz overwrote the logits.
        bias_grad: ``(V,)`` to add the bias's gradient to, or None.
    """
    if square is not None:
        assert rows.softcap is not None
        dz.addcmul_(dz, square, value=-1 / rows.softcap**2)  # times 1 - tanh^2
    if rows.temperature is not None:
        dz.div_(rows.temperature[:, None])
    if rows.logit_scale != 1.0:
        dz.mul_(rows.logit_scale)
    if bias_grad is not None:
        bias_grad.add_(dz.sum(0))
