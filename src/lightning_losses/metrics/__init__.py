# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics that stream: torchmetrics classes whose memory does not grow with the data."""

from lightning_losses.metrics.attention import attention_entropy
from lightning_losses.metrics.attention_bound import entropy_lower_bound
from lightning_losses.metrics.calibration import StreamingCalibration, TopLabel, top_label
from lightning_losses.metrics.classwise import ClasswiseCalibration
from lightning_losses.metrics.ebab import layer_information
from lightning_losses.metrics.exact_radius import exact_radius
from lightning_losses.metrics.histogram import ConfidenceHistogram
from lightning_losses.metrics.lr_sensitivity import lr_sensitivity
from lightning_losses.metrics.neural_collapse import NeuralCollapse
from lightning_losses.metrics.onset import onset_step
from lightning_losses.metrics.psi import psi
from lightning_losses.metrics.scaling_law import forecast
from lightning_losses.metrics.spectral_entropy import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
)

__all__ = [
    "ClasswiseCalibration",
    "ConfidenceHistogram",
    "NeuralCollapse",
    "StreamingCalibration",
    "TopLabel",
    "attention_entropy",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "entropy_lower_bound",
    "exact_radius",
    "forecast",
    "layer_information",
    "lr_sensitivity",
    "onset_step",
    "psi",
    "top_label",
]
