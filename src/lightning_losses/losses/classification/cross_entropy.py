# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Cross-entropy, with label smoothing and class weights as in torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.class_weights import ClassWeights
from lightning_losses.losses.shared.constant import exact
from lightning_losses.losses.shared.validation import check_length


class CrossEntropy(nn.Module):
    """``-log p_y``, the negative log-likelihood of the target class, in nats.

    Smoothing mixes the target with the uniform distribution over all classes, the true one
    included (Szegedy et al., arXiv 1512.00567). Class weights follow torch: they multiply rows,
    and the mean divides by their sum; of soft targets they multiply ``t_c log p_c``, and the mean
    divides by the rows.

    Args:
        label_smoothing: mass moved to the uniform distribution, a fraction in [0, 1].
        class_weight: ``(C,)`` non-negative weights of the classes.

    Shapes: per-row values ``(N,)`` from softmax statistics; soft targets ``(N, C)`` will do.
    """

    scope = "rows"
    contract = Contract(target=("class", "soft"))

    def __init__(
        self, label_smoothing: float = 0.0, class_weight: Sequence[float] | Tensor | None = None
    ) -> None:
        super().__init__()
        if not 0 <= label_smoothing <= 1:
            raise ValueError(f"label_smoothing must be in [0, 1], got {label_smoothing}.")
        self.label_smoothing = label_smoothing
        weight = None if class_weight is None else ClassWeights(class_weight, "class_weight")
        self.class_weight = weight
        self.needs: tuple[str, ...] = ()
        if label_smoothing and weight is not None:
            self.needs = ("target", "weighted_log_prob")
        elif label_smoothing:
            self.needs = ("mean_log_prob",)
        elif weight is not None:
            self.needs = ("target",)

    def forward(
        self,
        log_prob: Tensor,
        mean_log_prob: Tensor | None = None,
        weighted_log_prob: Tensor | None = None,
        target: Tensor | None = None,
        logits: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        nll = -log_prob
        eps = self.label_smoothing
        if self.class_weight is None:
            if not eps:
                return nll
            assert mean_log_prob is not None
            return (1 - eps) * nll - eps * mean_log_prob
        assert target is not None
        self.class_weight.check(logits)  # where they are at hand: hidden states have none
        if target.ndim == 1:  # soft targets hold the weights already, see `weigh_target`
            nll = self.class_weight.of(target, nll) * nll
        if not eps:
            return nll
        assert weighted_log_prob is not None
        return (1 - eps) * nll - eps * weighted_log_prob

    @property
    def weigh_target(self) -> Callable[[Tensor], Tensor] | None:
        """What soft targets ``(N, C)`` become before their log p is taken; None without weights."""
        return None if self.class_weight is None else self._weighed

    def _weighed(self, target: Tensor) -> Tensor:
        assert self.class_weight is not None
        check_length("class_weight", len(self.class_weight.values), target.shape[1])
        soft = target.to(torch.promote_types(target.dtype, torch.float32))
        return soft * self.class_weight.like(soft)

    def row_divisors(self, target: Tensor | None) -> Tensor | None:
        """Torch's rule: the mean over rows divides by the sum of their class weights."""
        if self.class_weight is None or target is None or target.ndim > 1:
            return None
        return self.class_weight.of(target, target.new_empty(0, dtype=exact(target.device)))

    def sum_over_rows(self, logits: Tensor, target: Tensor, skipped: int) -> Tensor:
        """The sum over rows by torch's own kernel; rows whose target is `skipped` are 0."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        return F.cross_entropy(
            logits,
            target,
            ignore_index=skipped,
            label_smoothing=self.label_smoothing,
            reduction="sum",
        )
