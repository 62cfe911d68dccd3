# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Was a text in the training data? Scores of its tokens; larger says that it was not."""

from __future__ import annotations

import torch
from torch import Tensor


def min_k(log_prob: Tensor, valid: Tensor | None = None, fraction: float = 0.2) -> Tensor:
    """Min-K%: minus the mean of the lowest log-probabilities of each text.

    Shi et al., "Detecting Pretraining Data from Large Language Models", arXiv 2310.16789: a text
    that was not seen has a few words that surprise. Min-K%++ (arXiv 2404.02936) is the same of
    `standardised` log-probabilities.

    Args:
        log_prob: ``(B, T)`` nats.
        valid: ``(B, T)`` bool, or None for all.
        fraction: of the tokens that count, rounded down, at least one.

    Returns:
        ``(B,)`` nats; 0 for a text without tokens.

    Examples:
        >>> min_k(torch.tensor([[-0.1, -5.0, -0.2, -6.0, -0.1]]), fraction=0.4)
        tensor([5.5000])
    """
    valid = torch.ones_like(log_prob, dtype=torch.bool) if valid is None else valid
    number = valid.sum(1)
    # A count of 3 times 1/3 is 1, though it rounds to less.
    wanted = (fraction * number + 1e-9).long().clamp(min=1)
    ordered = torch.where(valid, log_prob, torch.inf).sort(1).values
    place = torch.arange(log_prob.shape[1], device=log_prob.device)
    taken = place < torch.minimum(wanted, number)[:, None]
    return -torch.where(taken, ordered, 0).sum(1) / wanted


def standardised(log_prob: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    """``(log p - mean) / sqrt(variance)``, for Min-K%++; 0 where there is no variance.

    All ``(B, T)``; mean and variance of the log-probability under the model, see `moments`.
    """
    # Of equal probabilities rounding leaves a variance.
    some = variance > (16 * torch.finfo(mean.dtype).eps * mean).square()
    return torch.where(some, (log_prob - mean) / torch.where(some, variance, 1).sqrt(), 0)


def moments(logits: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (minus the entropy) and variance ``(...)`` of log p under p, of logits ``(..., V)``."""
    log_p = logits.log_softmax(-1)
    p = log_p.exp()
    log_p = torch.where(p > 0, log_p, 0)
    mean = (p * log_p).sum(-1)
    return mean, (p * (log_p - mean[..., None]).square()).sum(-1)


def dc_pdd(
    log_prob: Tensor,
    token: Tensor,
    reference_counts: Tensor,
    valid: Tensor | None = None,
    cap: float = 0.01,
) -> Tensor:
    """DC-PDD: minus the mean of ``min(p log(1 / f), cap)`` over the first occurrence of each token.

    Zhang et al., "Pretraining Data Detection for Large Language Models: A Divergence-based
    Calibration Method", arXiv 2409.14781. f is the token's frequency in other text, with 1 added to
    each count.

    Args:
        log_prob: ``(B, T)`` nats.
        token: ``(B, T)`` int64.
        reference_counts: ``(V,)`` how often each token is in other text.
        valid: ``(B, T)`` bool, or None for all.
        cap: the largest part of one token.

    Returns:
        ``(B,)``; 0 for a text without tokens.

    Examples:
        >>> log_prob = torch.tensor([[0.5, 0.5]]).log()
        >>> dc_pdd(log_prob, torch.tensor([[0, 1]]), torch.tensor([7, 0]), cap=1.0)
        tensor([-0.5294])
        >>> dc_pdd(log_prob, torch.tensor([[0, 0]]), torch.tensor([7, 0]), cap=1.0)  # a common word
        tensor([-0.0589])
    """
    valid = torch.ones_like(token, dtype=torch.bool) if valid is None else valid
    counts = reference_counts.to(log_prob.dtype) + 1
    frequency = counts / counts.sum()
    part = torch.minimum(
        -log_prob.exp() * frequency[torch.where(valid, token, 0)].log(),
        log_prob.new_full((), cap),
    )
    # Sorted by token, the first of each run is its first occurrence.
    order = torch.where(valid, token, -1).argsort(dim=1, stable=True)
    ordered = torch.where(valid, token, -1).gather(1, order)
    new = torch.ones_like(valid)
    new[:, 1:] = ordered[:, 1:] != ordered[:, :-1]
    first = torch.zeros_like(valid).scatter(1, order, new) & valid
    return -torch.where(first, part, 0).sum(1) / first.sum(1).clamp(min=1)
