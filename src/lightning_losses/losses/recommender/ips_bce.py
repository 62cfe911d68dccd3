# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Inverse propensity scoring: ratings that are likelier to be observed count less."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from lightning_losses.losses.classification.binary_cross_entropy import (
    BinaryCrossEntropy,
    OverLabels,
)


class IPSBinaryCrossEntropy(BinaryCrossEntropy):
    """``w BCE(z, t)`` with w the inverse propensity of the row; mean over rows, not over weights.

    Divided by the number of observed rows, this estimates the loss over what was not observed too
    (Schnabel et al., "Recommendations as Treatments", arXiv 1602.05352; weights by kernel
    balancing: Li et al., "Debiased Collaborative Filtering with Kernel-Based Causal Balancing",
    arXiv 2404.19596). The self-normalised estimator divides by the sum of weights: that is `bce`
    with the weights passed as sample_weight. Weights get no gradient, for 0 would be best.

    Args:
        positive_weight: as of `bce`; so are the next two.
        ignore_index: labels of this value are not known.
        over_labels: ``mean`` or ``sum``.

    Shapes: logits and target as of `bce`, inverse_propensity ``(N,)``, at least 0, made outside.
    Per-row values ``(N,)``.
    """

    def __init__(
        self,
        positive_weight: float | Sequence[float] | Tensor = 1.0,
        ignore_index: int | None = None,
        over_labels: OverLabels = "mean",
    ) -> None:
        super().__init__(positive_weight, ignore_index, over_labels)
        self.needs = ("inverse_propensity",)

    def forward(
        self,
        logits: Tensor,
        target: Tensor,
        valid: Tensor | None = None,
        inverse_propensity: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(N,)``."""
        assert inverse_propensity is not None
        losses = super().forward(logits, target, valid)
        return inverse_propensity.detach().to(losses.dtype) * losses
