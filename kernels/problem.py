# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""What every kernel is given: logits, or what makes them, flattened to rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import torch
from torch import Tensor

from .class_range import ClassRange

#: Every statistic a kernel can compute. All are per row, shape ``(N,)``, in nats where logarithmic.
STATISTICS = (
    "log_prob",  # log p of the target; for soft targets sum_j t_j log p_j
    "logsumexp",  # log sum_j exp z_j
    "entropy",  # -sum_j p_j log p_j
    "mean_logit",  # mean_j z_j
    "mean_log_prob",  # mean_j log p_j
    "weighted_log_prob",  # mean_j w_j log p_j, with the class weights w of the problem
    "collision",  # sum_j p_j^2
    "confidence",  # max_j p_j
    "prediction",  # argmax_j z_j, the lowest index among ties; int64, no gradient
)

#: What every backward pass needs, apart: max_j z_j, and sum_j exp(z_j - max z), between 1 and V.
#: The digits that tell classes apart are lost in log-sum-exp where all logits of a row are large.
MAX_AND_SUM = ("max_logit", "sum_exp")

#: Stands for -inf inside a kernel: exp of it is 0, and 0 times it is 0 rather than NaN.
LOWEST = -1e30
#: A float below this was made of LOWEST: no logit of a network is near it, and the mean of LOWEST
#: and 1e9 ordinary logits is still below.
NO_CLASS_LEFT = LOWEST * 1e-10


class Problem(NamedTuple):
    """Logits, or hidden states and the head that makes them; flattened to rows.

    Logits are ``z = cap * tanh((hidden W^T + bias) * scale / cap) / temperature``, with the
    soft-cap only if given: the order of Gemma and of sampling temperatures.
    """

    logits: Tensor | None = None  # (N, V)
    hidden: Tensor | None = None  # (N, D)
    head_weight: Tensor | None = None  # (V, D)
    head_bias: Tensor | None = None  # (V,)
    target: Tensor | None = None  # (N,) int64 in [0, V), or (N, V) soft targets
    #: (N,) bool; None means every row. Rows not valid get 0 and no gradient, and may hold anything.
    valid: Tensor | None = None
    temperature: Tensor | None = None  # (N,) positive
    #: (V,) for weighted_log_prob; with a class range of all classes, not of this rank's
    class_weight: Tensor | None = None
    softcap: float | None = None
    logit_scale: float = 1.0
    class_range: ClassRange | None = None  # logits or head are these of more classes
    max_valid: int | None = None  # no more rows than this are valid; see `compact`

    def sources(self) -> tuple[Tensor | None, ...]:
        """What may need a gradient: logits, hidden, head weight, head bias."""
        return self.logits, self.hidden, self.head_weight, self.head_bias

    def tensors(self) -> tuple[Tensor | None, ...]:
        """The fields that autograd must see as arguments; `sources` first."""
        return (*self.sources(), self.target, self.valid, self.temperature, self.class_weight)

    def options(self) -> dict[str, Any]:
        """The other fields, by name: ``Problem(*problem.tensors(), **problem.options())``."""
        fields = self._asdict()
        return {name: fields[name] for name in self._fields[len(self.tensors()) :]}

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

    def of_classes(self, start: int, stop: int) -> Problem:
        """The same rows for classes start to stop, as views; `target` still counts all classes."""

        def some(tensor: Tensor | None) -> Tensor | None:
            return None if tensor is None else tensor[start:stop]

        return self._replace(
            logits=None if self.logits is None else self.logits[:, start:stop],
            head_weight=some(self.head_weight),
            head_bias=some(self.head_bias),
            class_weight=some(self.class_weight),
        )

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

    def head(self) -> Tensor:
        """The head's weight in the dtype of the hidden states, for the matrix products."""
        assert self.head_weight is not None
        assert self.hidden is not None
        return self.head_weight.to(self.hidden.dtype)
