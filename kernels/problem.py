# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What every kernel is given, and the logits that it stands for."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from .class_range import ClassRange

#: Every statistic a kernel can compute. All are per row, shape ``(N,)``, in nats where logarithmic.
STATISTICS = (
    "log_prob",  # log p of the target; for soft targets sum_j t_j log p_j
    "logsumexp",  # log sum_j exp z_j
    "entropy",  # -sum_j p_j log p_j
    "mean_logit",  # mean_j z_j
    "collision",  # sum_j p_j^2
    "confidence",  # max_j p_j
    "prediction",  # argmax_j z_j, the lowest index among ties; int64, no gradient
)

#: Stands for -inf inside a kernel: exp of it is 0, and 0 times it is 0 rather than NaN.
LOWEST = -1e30


class Problem(NamedTuple):
    """Logits, or hidden states and the head that makes them; flattened to rows.

    Logits are ``z = cap * tanh((hidden W^T + bias) * scale / cap) / temperature``, with the
    soft-cap only if given: the order of Gemma and of sampling temperatures.
    """

    logits: Tensor | None  # (N, V)
    hidden: Tensor | None  # (N, D)
    head_weight: Tensor | None  # (V, D)
    head_bias: Tensor | None  # (V,)
    target: Tensor | None  # (N,) int64 in [0, V), or (N, V) soft targets
    #: (N,) bool; None means every row. Rows not valid get 0 and no gradient, and may hold anything.
    valid: Tensor | None
    temperature: Tensor | None  # (N,) positive
    softcap: float | None
    logit_scale: float
    class_range: ClassRange | None = None  # logits or head are these of more classes
    max_valid: int | None = None  # no more rows than this are valid; see `compact`

    @property
    def source(self) -> Tensor:
        """The tensor with one entry a row: logits or hidden states."""
        source = self.hidden if self.logits is None else self.logits
        assert source is not None
        return source

    @property
    def classes(self) -> int:
        """V, the number of classes; those of this rank if there is a class range."""
        if self.logits is not None:
            return self.logits.shape[1]
        assert self.head_weight is not None
        return self.head_weight.shape[0]

    @property
    def all_classes(self) -> int:
        """The number of classes of all ranks together."""
        return self.classes if self.class_range is None else self.class_range.num_classes

    @property
    def compute_dtype(self) -> torch.dtype:
        """float32 at least; float64 stays float64."""
        return torch.promote_types(self.source.dtype, torch.float32)

    def rows(self, start: int, stop: int) -> Problem:
        """The same problem for rows start to stop, as views."""
        return self._of_rows(lambda tensor: tensor[start:stop])

    def take(self, rows: Tensor) -> Problem:
        """The same problem for these rows ``(n,)`` int64, in this order, as copies with graph."""
        return self._of_rows(lambda tensor: tensor.index_select(0, rows))

    def _of_rows(self, pick: Callable[[Tensor], Tensor]) -> Problem:
        def some(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else pick(tensor)

        return self._replace(
            logits=some(self.logits),
            hidden=some(self.hidden),
            target=some(self.target),
            valid=some(self.valid),
            temperature=some(self.temperature),
        )

    def states(self) -> Tensor:
        """The hidden states with 0 in rows that do not count: in the product that makes the head's
        gradient a NaN there would outlive its dlogits of 0. A copy, so of a chunk where possible.
        """
        assert self.hidden is not None
        if self.valid is None:
            return self.hidden
        return torch.where(self.valid[:, None], self.hidden, 0)

    def head(self) -> Tensor:
        """The head's weight in the dtype of the hidden states, for the matrix products."""
        assert self.head_weight is not None
        assert self.hidden is not None
        return self.head_weight.to(self.hidden.dtype)


def materialise(problem: Problem) -> Tensor:
    """All logits of the problem, ``(N, V)``, differentiable, in the compute dtype.

    Rows that are not valid become 0 and -inf becomes `LOWEST` here, *before* any softmax: a mask
    applied after it leaves NaN gradients behind.
    """
    if problem.logits is not None:
        z = problem.logits.to(problem.compute_dtype)
        if problem.valid is not None:  # before the soft-cap: tanh of NaN has a NaN gradient
            z = torch.where(problem.valid[:, None], z, 0.0)
    else:
        z = (problem.states() @ problem.head().t()).to(problem.compute_dtype)
    if problem.head_bias is not None:
        z = z + problem.head_bias
    if problem.logit_scale != 1.0:
        z = z * problem.logit_scale
    if problem.softcap is not None:
        z = problem.softcap * torch.tanh(z / problem.softcap)
    if problem.temperature is not None:
        z = z / problem.temperature[:, None]
    if problem.valid is not None:
        z = torch.where(problem.valid[:, None], z, 0.0)
    return z.clamp(min=LOWEST)
