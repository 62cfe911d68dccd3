# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Training objectives for PyTorch Lightning, composed by Hydra, computed in one pass, watched."""

from lightning_losses.config import searchpath
from lightning_losses.config.build import build_objective
from lightning_losses.mixin import LossMixin
from lightning_losses.objective import Objective
from lightning_losses.record import LossRecord
from lightning_losses.sigma_reparam import sigma_reparam
from lightning_losses.softmax import ClassRange, SoftmaxStats, softmax_stats
from lightning_losses.term import Term

__all__ = [
    "ClassRange",
    "LossMixin",
    "LossRecord",
    "Objective",
    "SoftmaxStats",
    "Term",
    "build_objective",
    "sigma_reparam",
    "softmax_stats",
]

del searchpath
