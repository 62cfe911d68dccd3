# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Penalties: losses on parameters."""

from lightning_losses.penalties.adjacent_lasso import AdjacentLasso
from lightning_losses.penalties.elastic import Elastic
from lightning_losses.penalties.entropy_guided_attention import EntropyGuidedAttention
from lightning_losses.penalties.weight_distribution import WeightDistribution

__all__ = [
    "AdjacentLasso",
    "Elastic",
    "EntropyGuidedAttention",
    "WeightDistribution",
]
