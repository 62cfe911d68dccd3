# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How long the trainer means to train."""

from __future__ import annotations

import math

from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import Trainer


def planned_steps(trainer: Trainer) -> float:
    """Optimizer steps of the whole training; inf where nobody knows."""
    try:
        steps = float(trainer.estimated_stepping_batches)
    except MisconfigurationException:  # accumulation that changes from epoch to epoch
        return math.inf
    return steps if steps >= 0 else math.inf
