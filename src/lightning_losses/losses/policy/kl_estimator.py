# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""KL divergence to a reference policy, estimated from the actions that were taken."""

from __future__ import annotations

from typing import Literal, get_args

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.policy_ratio import LARGEST_LOG_RATIO

Estimator = Literal["k1", "k2", "k3", "abs", "k3+"]


class KLEstimator(nn.Module):
    """An estimate of KL(policy || reference) a row, with ``x = log p_ref - log p``.

    Schulman, "Approximating KL Divergence" (2020), names the first three:

    - ``k1``: ``-x``, unbiased; its gradient has mean 0, so as a loss it does nothing but add noise;
    - ``k2``: ``x^2 / 2``, biased, with the gradient of the true KL;
    - ``k3``: ``e^x - x - 1``, unbiased and never negative, what GRPO uses;
    - ``abs``: ``|x|``;
    - ``k3+``: the value of k3 with the gradient of k2.

    Log-ratios are held within +-20, with gradient 0 outside.

    Args:
        estimator: one of these.

    Shapes: per-row values ``(N,)`` in nats from the statistic log_prob of the actions (``target``)
    and ref_log_prob ``(N,)``, which gets no gradient.

    Raises:
        ValueError: an unknown estimator.
    """

    scope = "rows"
    contract = Contract()

    def __init__(self, estimator: Estimator = "k3") -> None:
        super().__init__()
        if estimator not in get_args(Estimator):
            raise ValueError(
                f"Unknown estimator {estimator!r}; write one of {', '.join(get_args(Estimator))}."
            )
        self.estimator = estimator

    def forward(self, log_prob: Tensor, ref_log_prob: Tensor) -> Tensor:
        """Per-row values ``(N,)``."""
        x = (ref_log_prob.detach() - log_prob).clamp(-LARGEST_LOG_RATIO, LARGEST_LOG_RATIO)
        if self.estimator == "k1":
            return -x
        if self.estimator == "abs":
            return x.abs()
        k2 = x.square() / 2
        if self.estimator == "k2":
            return k2
        k3 = x.expm1() - x
        return k3 if self.estimator == "k3" else k3.detach() + k2 - k2.detach()
