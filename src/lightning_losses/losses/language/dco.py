# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""DCO: the chance that one of several samples is right, instead of the chance that one is."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.sequences import sequences


def log1mexp(x: Tensor) -> Tensor:
    """``log(1 - e^x)`` for x <= 0, exact at either end; x = 0 is held at the largest below it."""
    x = x.clamp(max=-torch.finfo(x.dtype).tiny)
    near = x > -math.log(2)
    # Each branch is given only what it is for, so that the other one's slope is never infinite.
    return torch.where(
        near,
        (-torch.where(near, x, -1.0).expm1()).log(),
        torch.log1p(-torch.where(near, -1.0, x).exp()),
    )


def coverage_loss(log_prob: Tensor, samples: int) -> Tensor:
    """``-log(1 - (1 - p)^samples)`` for ``log p`` of any shape, stable for any p and any number.

    Where p is so small that ``samples * p`` is, it is ``-log p - log samples``: the slope in log p
    goes to -1 and never to 0, also where p underflows.
    """
    if samples == 1:
        return -log_prob
    rare = log_prob + math.log(samples)
    # Beyond this samples p / 2, what is left out, rounds away.
    tiny = rare < math.log(torch.finfo(log_prob.dtype).eps)
    usual = -log1mexp(samples * log1mexp(torch.where(tiny, -1.0, log_prob)))
    return torch.where(tiny, -rare, usual)


def coverage_factor(log_prob: Tensor, samples: int) -> Tensor:
    """``N p (1 - p)^(N - 1) / (1 - (1 - p)^N)``: by how much the gradient of -log p is scaled.

    Minus the slope of `coverage_loss` in log p: 1 for rare answers, 0 for those that are found
    anyway. Of any shape, without gradient.
    """
    if samples == 1:
        return torch.ones_like(log_prob)
    with torch.enable_grad():
        x = log_prob.detach().requires_grad_()
        (slope,) = torch.autograd.grad(coverage_loss(x, samples).sum(), x)
    return -slope


class DirectCoverage(nn.Module):
    """``-log(1 - (1 - p)^samples)``, p the probability of a whole sequence; mean over sequences.

    Chen et al., "Rethinking Fine-Tuning when Scaling Test-Time Compute: Limiting Confidence
    Improves Mathematical Reasoning", arXiv 2502.07154: cross-entropy makes a model surer than is
    good for pass@N, the chance that one of N samples is right. With ``samples: 1`` it is
    cross-entropy, summed over a sequence. The authors scale the gradient of -log p by
    `coverage_factor`; this is the loss with that gradient.

    Args:
        samples: N, how many will be drawn; 1 to 256 in the paper.
        per_token: divide each sequence's loss by its rows that count.

    Shapes: the statistic log_prob of the tokens (``target``), prompts masked or ignored;
    sequence_id ``(N,)`` int64, a sequence whole on one rank. One number for the sequences of all
    ranks, 0 if there are none.

    Raises:
        ValueError: no sample.
    """

    scope = "batch"
    contract = Contract()

    def __init__(self, samples: int = 16, per_token: bool = False) -> None:
        super().__init__()
        if isinstance(samples, bool) or samples != int(samples) or samples < 1:
            raise ValueError(f"samples must be a whole number, at least 1, got {samples}.")
        self.samples, self.per_token = int(samples), per_token

    def forward(self, log_prob: Tensor, sequence_id: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        valid = torch.ones_like(sequence_id, dtype=torch.bool) if valid is None else valid
        found = sequences(sequence_id, valid)
        log_p = found.total(torch.where(valid, log_prob, 0))
        loss = coverage_loss(torch.where(found.there, log_p, -1.0), self.samples)
        if self.per_token:
            loss = loss / found.size.clamp(min=1)
        count = all_sum(found.there.sum().to(loss.dtype))
        total = reduce_with_gradient(torch.where(found.there, loss, 0).sum())
        return total / count.clamp(min=1)

    def batch_divisor(
        self, sequence_id: Tensor, valid: Tensor | None = None, **_: Tensor
    ) -> Tensor:
        """The sequences that count."""
        valid = torch.ones_like(sequence_id, dtype=torch.bool) if valid is None else valid
        return sequences(sequence_id, valid).there.sum()
