# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Unlearning by ascent on what is to be forgotten, with as much descent as keeps the rest."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.wide_buffers import WideBuffers


class AdaptiveUnlearning(WideBuffers):
    """``-CE_forget + k CE_retain``, k larger where the retained text was forgotten too.

    The SHA256 team at SemEval-2025 task 4, "Unlearning sensitive content from LLMs" (arXiv
    2504.12996). k is ``lowest`` in the first epoch and where CE_retain is at most its mean over the
    epoch before; else ``0.3 * 6^(CE_retain - that mean) + 0.8``, to one decimal, within the bounds.
    k is a number without gradient. The value has no lower bound: stop in time. The mean is in
    checkpoints.

    Args:
        epoch_steps: optimizer steps of an epoch.
        lowest: smallest k.
        highest: largest k; 2.3 is the authors' code's, 2.8 is also quoted.

    Shapes: the statistic log_prob of the tokens (``target``); forget ``(N,)`` bool. Means are over
    the rows that count, of all ranks. One number for the batch; 0 without rows that count.

    Raises:
        ValueError: no steps, or bounds out of order.
    """

    scope = "batch"
    contract = Contract()
    before: Tensor  # mean CE_retain of the epoch before; inf before there is one
    seen: Tensor  # its sum over this epoch's batches so far, and their number

    def __init__(self, epoch_steps: int = 1000, lowest: float = 1.2, highest: float = 2.3) -> None:
        super().__init__()
        if epoch_steps < 1 or not 0 <= lowest <= highest:
            raise ValueError(
                "epoch_steps must be at least 1 and 0 <= lowest <= highest, got "
                f"{epoch_steps}, {lowest} and {highest}; write 1000, 1.2, 2.3."
            )
        self.epoch_steps, self.lowest, self.highest = epoch_steps, lowest, highest
        self.register_buffer("before", torch.full((), torch.inf))
        self.register_buffer("seen", torch.zeros(2))
        self._epoch: int | None = None

    def set_step(self, step: int) -> None:
        """At the first step of another epoch the mean of the last one is what counts."""
        epoch = step // self.epoch_steps
        # After resuming the epoch goes on, unless the checkpoint was of the end of one.
        ended = step % self.epoch_steps == 0 if self._epoch is None else epoch != self._epoch
        self._epoch = epoch
        if ended:
            total, times = self.seen
            self.before.copy_(torch.where(times > 0, total / times.clamp(min=1), self.before))
            self.seen.zero_()

    def retain_weight(self, retained: Tensor) -> Tensor:
        """k for a mean cross-entropy of retained text, 0-dim."""
        gap = retained.detach() - self.before.to(retained.dtype)
        k = ((0.3 * 6**gap + 0.8) * 10).round() / 10
        return torch.where(gap > 0, k, self.lowest).clamp(self.lowest, self.highest)

    def forward(self, log_prob: Tensor, forget: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        valid = torch.ones_like(forget, dtype=torch.bool) if valid is None else valid
        forget = forget.bool()
        sides = torch.stack([valid & ~forget, valid & forget])
        nll = torch.where(valid, -log_prob, 0)
        sums = reduce_with_gradient(torch.where(sides, nll, 0).sum(1))
        counts = all_sum(sides.sum(1).to(nll.dtype))
        retained, forgotten = sums / counts.clamp(min=1)
        k = self.retain_weight(retained)
        if self.training and torch.is_grad_enabled():
            one = torch.stack([retained.detach(), torch.ones_like(retained)])
            self.seen += torch.where(counts[0] > 0, one, 0).to(self.seen)
        value: Tensor = k * retained - forgotten
        return value
