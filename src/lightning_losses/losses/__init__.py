# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Every loss class, by family; each is one small file, its YAML in ``conf/loss``."""

from lightning_losses.losses.classification.comp_sum import CompSum
from lightning_losses.losses.classification.cross_entropy import CrossEntropy
from lightning_losses.losses.classification.entropy_bonus import EntropyBonus
from lightning_losses.losses.classification.focal import Focal
from lightning_losses.losses.classification.logsumexp_penalty import LogsumexpPenalty
from lightning_losses.losses.classification.opl import OrthogonalProjection
from lightning_losses.losses.classification.stablemax import StableMax
from lightning_losses.losses.distillation.kd import KnowledgeDistillation
from lightning_losses.losses.metric.multi_similarity import MultiSimilarity
from lightning_losses.losses.robust.trades import Trades

__all__ = [
    "CompSum",
    "CrossEntropy",
    "EntropyBonus",
    "Focal",
    "KnowledgeDistillation",
    "LogsumexpPenalty",
    "MultiSimilarity",
    "OrthogonalProjection",
    "StableMax",
    "Trades",
]
