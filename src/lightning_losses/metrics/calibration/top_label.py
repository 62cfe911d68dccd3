# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""From logits to what the model claims and what came of it: confidence, correctness, scores."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class TopLabel(NamedTuple):
    """What `StreamingCalibration.update` takes, in its order; every field is `(N,)`.

    Examples:
        >>> rows = top_label(torch.zeros(1, 2), torch.tensor([1]))
        >>> rows.confidence, rows.correct, rows.nll  # half, wrong, log 2
        (tensor([0.5000]), tensor([False]), tensor([0.6931]))
        >>> metric = StreamingCalibration()
        >>> metric.update(*rows)
    """

    confidence: Tensor
    correct: Tensor
    nll: Tensor
    brier: Tensor
    valid: Tensor


def top_label(logits: Tensor, target: Tensor, ignore_index: int = -100) -> TopLabel:
    """Confidence, correctness and proper scores of the most likely class.

    Args:
        logits: `(..., C)`, any floating dtype; half precision is computed in float32. Builds one
            `(N, C)` tensor: for a large vocabulary take confidence, log-probability and collision
            from the softmax statistics the loss has computed already, and sub-sample rows.
        target: `(...)` int64 class indices; `ignore_index` marks rows that do not count.
        ignore_index: the target value of rows to leave out.

    Returns:
        Detached `(N,)` tensors: confidence in [0, 1], correct (bool), nll in nats, multiclass Brier
        score in [0, 2], valid (bool).

    Raises:
        ValueError: `target` has not the shape of `logits` without its last dimension, or is not of
            integers; on a CPU, a class without a column. Elsewhere, where asking would wait for the
            device, all numbers of such a row are NaN.

    Examples:
        >>> rows = top_label(torch.tensor([[2.0, 0.0], [0.0, 2.0]]), torch.tensor([0, 0]))
        >>> rows.confidence, rows.correct
        (tensor([0.8808, 0.8808]), tensor([ True, False]))
    """
    if target.shape != logits.shape[:-1]:
        raise ValueError(
            f"top_label needs logits (..., C) and target (...), found logits {tuple(logits.shape)}"
            f" and target {tuple(target.shape)}; classes go last, so for (N, C, ...) write"
            " logits.movedim(1, -1)"
        )
    if target.is_floating_point() or target.is_complex() or not logits.shape[-1]:
        raise ValueError(
            "top_label needs class indices and at least one class, found target "
            f"{target.dtype} and logits {tuple(logits.shape)}; write .long() for indices, "
            ".argmax(-1) for soft targets"
        )
    dtype = torch.promote_types(logits.dtype, torch.float32)
    log_p = logits.detach().to(dtype).reshape(-1, logits.shape[-1]).log_softmax(-1)
    target = target.flatten().long()
    valid = target != ignore_index
    unclear = valid & ((target < 0) | (target >= log_p.shape[-1]))
    if unclear.device.type == "cpu" and bool(unclear.any()):
        raise ValueError(
            f"top_label got {log_p.shape[-1]} columns of logits and class "
            f"{target[unclear][0].item()}; write ignore_index={target[unclear][0].item()} if such "
            "rows do not count, target - 1 for labels from 1"
        )
    log_p = torch.where(unclear[:, None], torch.nan, log_p)
    highest, prediction = log_p.max(-1)
    log_p_target = log_p.gather(-1, target.where(valid & ~unclear, 0).unsqueeze(-1)).squeeze(-1)
    collision = log_p.exp().square().sum(-1)
    return TopLabel(
        confidence=highest.exp(),
        correct=prediction == target,
        nll=-log_p_target,
        brier=(collision - 2 * log_p_target.exp() + 1).clamp(min=0),
        valid=valid,
    )


def binary_event(logits: Tensor, target: Tensor, ignore_index: int = -100) -> TopLabel:
    """Confidence that an event happens, whether it did, and proper scores; for labels, all of them.

    The confidence is the probability of the event itself, `sigmoid(logits)`, not of the likelier of
    event and no event.

    Args:
        logits: `(...)`, any floating dtype: `(N,)` for one event a row, `(N, L)` for L labels.
        target: the same shape, 0 or 1; `ignore_index` marks entries that do not count.
        ignore_index: the target value of entries to leave out.

    Returns:
        Detached `(N,)` tensors, `(N L)` for labels: as `top_label`; the Brier score is that of the
        event, in [0, 1], half of what the two classes together have.

    Raises:
        ValueError: shapes differ; on a CPU, a target that is neither 0 nor 1. Elsewhere, where
            asking would wait for the device, all numbers of such an entry are NaN, which
            `StreamingCalibration` leaves out and counts in `nan_rows`.

    Examples:
        >>> rows = binary_event(torch.tensor([0.0, 2.0]), torch.tensor([1, 0]))
        >>> rows.confidence, rows.correct
        (tensor([0.5000, 0.8808]), tensor([ True, False]))
    """
    if target.shape != logits.shape:
        raise ValueError(
            f"binary_event needs one target for each logit, found logits {tuple(logits.shape)} and "
            f"target {tuple(target.shape)}; for classes (..., C) use top_label"
        )
    z = logits.detach().to(torch.promote_types(logits.dtype, torch.float32)).flatten()
    target = target.flatten()
    valid, happened = target != ignore_index, target == 1
    unclear = valid & ~happened & (target != 0)
    refuse_labels(unclear, target, "binary_event")
    z = torch.where(unclear, torch.nan, z)
    p = z.sigmoid()
    return TopLabel(
        confidence=p,
        correct=happened,
        nll=torch.nn.functional.softplus(torch.where(happened, -z, z)),
        brier=(p - happened.to(p)).square(),
        valid=valid,
    )


def counting(valid: Tensor | None, like: Tensor, who: str) -> Tensor:
    """Which rows count, bool of the shape of ``like``: all without ``valid``.

    Raises ValueError for another shape; on a CPU, for values that are neither 0 nor 1, as -1 or 0.5
    would be taken for True.
    """
    if valid is None:
        return torch.ones_like(like, dtype=torch.bool)
    if valid.shape != like.shape:
        raise ValueError(
            f"{who} needs valid {tuple(like.shape)}, one a row, found {tuple(valid.shape)}"
        )
    wrong = (valid != 0) & (valid != 1)
    if wrong.device.type == "cpu" and bool(wrong.any()):
        raise ValueError(
            f"{who} needs valid of True and False, found {valid[wrong][0].item()}: write target >= "
            "0 or another comparison; weights of rows are not known here"
        )
    return valid.bool()


def refuse_labels(unclear: Tensor, target: Tensor, who: str) -> None:
    """Raise ValueError for labels that say neither yes nor no, on a CPU."""
    if unclear.device.type == "cpu" and bool(unclear.any()):
        raise ValueError(
            f"{who} needs targets of 0 and 1, found {target[unclear][0].item()}: write target // "
            "255 for 0 and 255, target > 0 for -1 and 1, ignore_index or valid for labels that "
            "nobody knows"
        )
