# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""PACS: policy optimisation as a classification of responses into right and wrong."""

from __future__ import annotations

from typing import Literal, get_args

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.sequences import Sequences, sequences

Score = Literal["log_ratio", "mean_log_prob"]
Baseline = Literal["rloo", "grpo", "none"]
Weights = Literal["balanced", "positive", "none"]

#: Score of a response that cannot be, whose log p is minus infinity; its square is a float32.
LEAST = -1e15


class PACS(nn.Module):
    """Binary cross-entropy of "this response is right" with the policy's own score as its logit.

    Li et al., "Implicit Actor Critic Coupling via a Supervised Learning Framework for RLVR",
    arXiv 2509.02522. The score s of a response is ``beta sum (log p - log p_old)`` or
    ``beta mean log p`` over the rows that count (the authors' code adds up padding too); the logit
    is s less its baseline among the responses to one prompt, through which the gradient goes as
    well. A response is right if its rewards add up to more than 0. Mean over responses.

    Args:
        beta: scale of the score, positive.
        score: ``log_ratio`` or ``mean_log_prob``.
        baseline: ``rloo``, the mean of the others; ``grpo``, mean and standard deviation of the
            group; ``none``. A response alone has none.
        class_weight: ``balanced``, right and wrong responses to a prompt weigh the same together;
            ``positive``, wrong ones weigh nothing; ``none``.

    Shapes: the statistic log_prob of the tokens (``target``); old_log_prob and reward ``(N,)``
    without gradient; sequence_id and prompt_id ``(N,)`` int64. The responses to a prompt must be on
    one rank. One number for the responses of all ranks, 0 if there are none.

    Raises:
        ValueError: an unknown word, or beta that is not positive.
    """

    scope = "batch"
    contract = Contract()

    def __init__(
        self,
        beta: float = 1.0,
        score: Score = "log_ratio",
        baseline: Baseline = "rloo",
        class_weight: Weights = "balanced",
    ) -> None:
        super().__init__()
        if not beta > 0:
            raise ValueError(f"beta must be positive, got {beta}; write 1.0.")
        for name, value, words in (
            ("score", score, get_args(Score)),
            ("baseline", baseline, get_args(Baseline)),
            ("class_weight", class_weight, get_args(Weights)),
        ):
            if value not in words:
                raise ValueError(f"{name} must be one of {', '.join(words)}, got {value!r}.")
        self.beta, self.score, self.baseline, self.weights = beta, score, baseline, class_weight

    def forward(
        self,
        log_prob: Tensor,
        old_log_prob: Tensor,
        reward: Tensor,
        sequence_id: Tensor,
        prompt_id: Tensor,
        valid: Tensor | None = None,
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        valid = torch.ones_like(sequence_id, dtype=torch.bool) if valid is None else valid
        response = sequences(sequence_id, valid)
        there = response.there
        right = response.total(torch.where(valid, reward.detach(), 0)) > 0
        if self.score == "log_ratio":
            s = response.total(torch.where(valid, log_prob - old_log_prob.detach(), 0))
        else:
            s = response.total(torch.where(valid, log_prob, 0)) / response.size.clamp(min=1)
        s = s.clamp(min=LEAST)
        prompt = sequences(response.pick(prompt_id, valid), there)
        logit = self._less_baseline(torch.where(there, self.beta * s, 0), prompt)
        label = right.to(logit.dtype)
        loss = F.binary_cross_entropy_with_logits(logit, label, reduction="none")
        loss = torch.where(there, loss * self._class_weights(right, there, prompt, label), 0)
        count = all_sum(there.sum().to(loss.dtype))
        return reduce_with_gradient(loss.sum()) / count.clamp(min=1)

    def batch_divisor(
        self, sequence_id: Tensor, valid: Tensor | None = None, **_: Tensor
    ) -> Tensor:
        """The responses that count."""
        valid = torch.ones_like(sequence_id, dtype=torch.bool) if valid is None else valid
        return sequences(sequence_id, valid).there.sum()

    def _less_baseline(self, s: Tensor, prompt: Sequences) -> Tensor:
        """The score of a response ``(N,)`` against the others of its prompt."""
        if self.baseline == "none":
            return s
        n = prompt.size[prompt.slot]
        centred = s - (prompt.total(s) / prompt.size.clamp(min=1))[prompt.slot]
        others = (n - 1).clamp(min=1)
        if self.baseline == "rloo":  # s - mean of the others = (s - mean of all) n / (n - 1)
            return torch.where(n > 1, centred * n / others, s)
        squares = torch.where(n > 0, centred.square(), 0)
        variance = prompt.total(squares)[prompt.slot] / others
        # Of equal scores the root has no slope, and dividing 0 by it is 0 whatever it is.
        some = variance > 0
        std = torch.where(some, variance, 1).sqrt()
        return torch.where(n > 1, torch.where(some, centred / (std + 1e-6), 0), s)

    def _class_weights(
        self, right: Tensor, there: Tensor, prompt: Sequences, label: Tensor
    ) -> Tensor:
        """The weight of each response ``(N,)``."""
        if self.weights == "none":
            return torch.ones_like(label)
        if self.weights == "positive":
            return label
        n = prompt.size[prompt.slot]
        positive = prompt.total((right & there).long())[prompt.slot]
        own = torch.where(right, positive, n - positive)
        both = (positive > 0) & (positive < n)
        return torch.where(both, n / (2 * own.clamp(min=1)), 1).to(label.dtype)
