# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""The rows of one `compute_loss`, copied, so that their logits can be had after the step."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

from lightning_losses.callbacks.reading.events import read_events
from lightning_losses.contract import HeadKind
from lightning_losses.evaluation.rows import Rows, flatten
from lightning_losses.softmax import Problem


class StepRows(NamedTuple):
    """The rows that are measured, without graph, and where their logits come from."""

    problem: Problem
    chosen: Tensor  # (n,) which of the rows of the call
    epsilon: float  # of the coarsest precision on the way to the logits


@torch.no_grad()
def step_rows(
    named: dict[str, Any],
    ignore_index: int,
    max_rows: int,
    chosen: Tensor | None = None,
    dtype: torch.dtype | None = None,
    head: HeadKind = "softmax",
) -> StepRows:
    """Copy the rows that count, every k-th so that there are at most ``max_rows``.

    Args:
        named: the named tensors of one ``compute_loss``.
        ignore_index: rows with this target do not count, nor do rows of ``sample_weight`` 0.
        max_rows: how many rows to copy at most.
        chosen: exactly these rows instead.
        dtype: that the model computes in, if not that of its logits.
        head: what the loss makes of the logits. Of a sigmoid each label is a row of its own.

    Where classes are split over ranks, a rank has all rows and the classes that it holds.

    Raises:
        ValueError: there are neither logits nor hidden states, or shapes do not go together, or
            the labels of sigmoids are split over ranks.
    """
    batch = flatten(
        {k: v.detach() if isinstance(v, Tensor) else v for k, v in named.items()}, ignore_index
    )
    logits = batch.tensors.get("logits")
    if logits is None and "hidden" not in batch.tensors:
        raise ValueError("compute_loss gets neither logits nor hidden, so there is no softmax")
    split = "class_range" in batch.tensors
    if split and head == "sigmoid":
        raise ValueError(
            "each label has a sigmoid of its own, and the labels are split over ranks: to measure "
            "it, pass logits.redistribute(placements=[Replicate(), ...])"
        )
    # A slice of one class is no binary score.
    one_column = logits is not None and not split and (logits.ndim == 1 or logits.shape[1] == 1)
    if logits is not None and (head == "sigmoid" or one_column):
        batch = _two_classes(batch, logits)
    target = batch.tensors.get("target")
    if chosen is None:
        counts = batch.valid if batch.weight is None else batch.weight > 0
        every = torch.arange(batch.num_rows, device=batch.device)
        chosen = every if counts is None else every[counts]
        chosen = chosen[:: max(1, math.ceil(len(chosen) / max_rows))]
    problem = batch.problem(None)
    kind = problem.source.device.type
    dtypes = [problem.source.dtype, *([] if dtype is None else [dtype])]
    if torch.is_autocast_enabled(kind):
        dtypes.append(torch.get_autocast_dtype(kind))
    epsilon = max(torch.finfo(dtype).eps for dtype in dtypes)

    def copy(tensor: Tensor | None) -> Tensor | None:  # the optimizer writes into the original
        return None if tensor is None else tensor.clone()

    problem = problem._replace(
        head_weight=copy(problem.head_weight),
        head_bias=copy(problem.head_bias),
        target=_class_target(target, problem.all_classes),
        valid=None,
    ).take(chosen)
    return StepRows(problem, chosen, epsilon)


def _two_classes(batch: Rows, logits: Tensor) -> Rows:
    """Sigmoids as the softmax of two classes, no with logit 0 and yes, a row each ``(N L, 2)``.

    log(1 + e^z) has its nearest singularity at a distance of pi, as the softmax of the two has.
    Scales and temperatures are of a softmax, so a sigmoid's loss knows none.
    """
    z, happened, known = read_events(logits, batch.tensors.get("target"), None)
    yes = z.to(logits.dtype).flatten()
    tensors = {"logits": torch.stack([torch.zeros_like(yes), yes], 1)}
    if happened is not None:  # an answer that is not known has no slope
        t, counts = happened.flatten(), known.flatten().to(happened.dtype)
        tensors["target"] = torch.stack([counts - t, t], 1)
    labels = z.shape[1]
    valid, weight = (
        None if rows is None else rows.repeat_interleave(labels)
        for rows in (batch.valid, batch.weight)
    )
    rows = len(yes)
    return batch._replace(tensors=tensors, valid=valid, weight=weight, num_rows=rows)


def _class_target(target: Tensor | None, classes: int) -> Tensor | None:
    """Class indices ``(N,)`` or distributions ``(N, V)``; None if it is anything else."""
    if target is None:
        return None
    if target.is_floating_point():
        return target if target.ndim == 2 and target.shape[1] == classes else None
    return target if target.ndim == 1 else None
