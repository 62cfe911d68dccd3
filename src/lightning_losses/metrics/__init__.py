# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics that stream: torchmetrics classes whose memory does not grow with the data."""

from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.calibration.histogram import ConfidenceHistogram
from lightning_losses.metrics.calibration.psi import psi
from lightning_losses.metrics.calibration.streaming import StreamingCalibration
from lightning_losses.metrics.calibration.top_label import TopLabel, binary_event, top_label
from lightning_losses.metrics.entropy.attention import attention_entropy
from lightning_losses.metrics.entropy.attention_bound import entropy_lower_bound
from lightning_losses.metrics.language.best_of_n import best_of_n_kl_bound
from lightning_losses.metrics.language.membership import dc_pdd, min_k
from lightning_losses.metrics.representation.ebab import layer_information
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse
from lightning_losses.metrics.representation.spectral_entropy import (
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
)
from lightning_losses.metrics.step_radius.exact import exact_radius
from lightning_losses.metrics.topology.betti import BettiError, betti_error, betti_numbers
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity
from lightning_losses.metrics.training_curve.onset import onset_step
from lightning_losses.metrics.training_curve.scaling_law import forecast

__all__ = [
    "BettiError",
    "ClasswiseCalibration",
    "ConfidenceHistogram",
    "NeuralCollapse",
    "StreamingCalibration",
    "TopLabel",
    "attention_entropy",
    "best_of_n_kl_bound",
    "betti_error",
    "betti_numbers",
    "binary_event",
    "dc_pdd",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "entropy_lower_bound",
    "exact_radius",
    "forecast",
    "layer_information",
    "lr_sensitivity",
    "min_k",
    "onset_step",
    "psi",
    "top_label",
]
