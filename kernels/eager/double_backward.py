# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The backward pass for second derivatives: every step out of place, on materialised logits."""

from __future__ import annotations

from torch import Tensor

from ..logits import materialise
from ..problem import Problem
from ..row_math import Given, gradient
from ..valid_rows import zero_ignored_rows


def backward(
    problem: Problem, grads: dict[str, Tensor | None], prediction: Tensor | None
) -> tuple[Tensor | None, ...]:
    """The same gradients, themselves differentiable; holds ``(N, V)`` tensors."""
    z = materialise(problem)
    dz = gradient(z, grads, Given(problem.target, prediction, problem.class_weight))
    if problem.temperature is not None:
        dz = dz / problem.temperature[:, None]
        z = z * problem.temperature[:, None]
    if problem.softcap is not None:
        dz = dz * (1 - (z / problem.softcap).square())
    dz = dz * problem.logit_scale
    dz = zero_ignored_rows(dz, problem.valid)
    bias = problem.head_bias
    bias_grad = None if bias is None else dz.sum(0).to(bias.dtype)
    if problem.logits is not None:
        return dz.to(problem.logits.dtype), None, None, bias_grad
    assert problem.hidden is not None
    assert problem.head_weight is not None
    hidden = zero_ignored_rows(problem.hidden, problem.valid)
    dz = dz.to(hidden.dtype)
    head_grad = (dz.t() @ hidden).to(problem.head_weight.dtype)
    return None, dz @ problem.head(), head_grad, bias_grad
