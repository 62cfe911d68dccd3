# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Maps from logits to better probabilities, fitted on held-out rows after training."""

from lightning_losses.calibrators.calibrator import Calibrator
from lightning_losses.calibrators.correctness_aware import CorrectnessAware
from lightning_losses.calibrators.correctness_views import CorrectnessAwareViews
from lightning_losses.calibrators.dirichlet import DirichletScaling
from lightning_losses.calibrators.histogram import HistogramBinning
from lightning_losses.calibrators.isotonic import Isotonic
from lightning_losses.calibrators.temperature import TemperatureScaling
from lightning_losses.calibrators.vector import VectorScaling

__all__ = [
    "Calibrator",
    "CorrectnessAware",
    "CorrectnessAwareViews",
    "DirichletScaling",
    "HistogramBinning",
    "Isotonic",
    "TemperatureScaling",
    "VectorScaling",
]
