# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""LegoGCD: unlabelled samples that look like known classes keep to them."""

from __future__ import annotations

import torch
from torch import Tensor

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum
from lightning_losses.losses.shared.rows_math import LOWEST, from_top, log_softmax
from lightning_losses.wide_buffers import WideBuffers


class LocalEntropy(WideBuffers):
    """Cross-entropy of a prediction with itself, debiased, for likely samples of known classes.

    Cao et al., "Solving the Catastrophic Forgetting Problem in Generalized Category Discovery",
    arXiv 2501.05272: ``-sum p log softmax(z / T + tau log q)`` with p = softmax(z / T), for
    unlabelled rows whose class is a known one with a probability of at least the threshold; 0 for
    other rows, which count in the mean. q is a running mean of softmax(z) over all rows, uniform in
    the beginning, in checkpoints; a step reads the q of the steps before. As in the authors' code,
    p keeps its gradient. Their weight of it is 2.

    Args:
        num_classes: columns of the logits.
        num_labelled: the first ones of them are the known classes.
        threshold: of the probability that a row is of its class.
        tau: strength of the debiasing.
        temperature: T of p, positive.
        confidence_temperature: of the probability that is held against the threshold.
        momentum: of q, in [0, 1].

    Shapes: logits ``(N, C)``, labelled ``(N,)`` bool, other_logits of a second view ``(N, C)``
    optional: the mean of both; per-row values ``(N,)`` in nats.

    Raises:
        ValueError: settings out of range.
    """

    scope = "rows"
    contract = Contract(target=("none",), same_columns=(("logits", "other_logits"),))
    share: Tensor  # q (C,)

    def __init__(
        self,
        num_classes: int,
        num_labelled: int,
        threshold: float = 0.7,
        tau: float = 0.4,
        temperature: float = 0.05,
        confidence_temperature: float = 0.1,
        momentum: float = 0.999,
    ) -> None:
        super().__init__()
        if not 0 < num_labelled <= num_classes:
            raise ValueError(
                "num_labelled must be at least 1 and at most num_classes, got "
                f"{num_labelled} of {num_classes}."
            )
        if not (temperature > 0 and confidence_temperature > 0 and 0 <= momentum <= 1):
            raise ValueError(
                "temperatures must be positive and momentum in [0, 1], got "
                f"{temperature}, {confidence_temperature} and {momentum}."
            )
        self.num_labelled, self.threshold, self.tau = num_labelled, threshold, tau
        self.temperature, self.confidence_temperature = temperature, confidence_temperature
        self.momentum = momentum
        self.register_buffer("share", torch.full((num_classes,), 1 / num_classes))

    def forward(
        self,
        logits: Tensor,
        labelled: Tensor,
        other_logits: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        if logits.shape[1] != len(self.share):
            raise ValueError(
                f"num_classes is {len(self.share)}, but logits have {logits.shape[1]} columns: "
                f"write num_classes: {logits.shape[1]}."
            )
        given = [logits] if other_logits is None else [logits, other_logits]
        views = [from_top(z).clamp(min=LOWEST) for z in given]
        values = torch.stack([self._of_view(z, labelled) for z in views]).mean(0)
        if self.training and torch.is_grad_enabled():
            self._follow(torch.stack([z.detach().softmax(1) for z in views]).mean(0), valid)
        return values

    def _of_view(self, z: Tensor, labelled: Tensor) -> Tensor:
        confidence, best = (z.detach() / self.confidence_temperature).softmax(1).max(1)
        chosen = (confidence >= self.threshold) & (best < self.num_labelled) & ~labelled.bool()
        p = (z / self.temperature).softmax(1)
        q = self.share.to(z.dtype).clamp(min=torch.finfo(z.dtype).tiny)
        debiased = log_softmax(z / self.temperature + self.tau * q.log())
        return torch.where(chosen, -(p * debiased).sum(1), 0)

    def _follow(self, p: Tensor, valid: Tensor | None) -> None:
        """Move q towards the mean of p over the rows of all ranks."""
        if valid is not None:
            p = torch.where(valid[:, None], p, 0)
        count = p.new_full((1,), len(p)) if valid is None else valid.sum()[None].to(p.dtype)
        sums = all_sum(torch.cat([p.sum(0), count]))
        mean = (sums[:-1] / sums[-1].clamp(min=1)).to(self.share)
        moved = self.share + (1 - self.momentum) * (mean - self.share)
        self.share = torch.where(sums[-1] > 0, moved, self.share)
