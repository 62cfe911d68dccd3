# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors (read records) and controllers (also act), one a file."""

from lightning_losses.callbacks.attention_entropy import AttentionEntropyMonitor
from lightning_losses.callbacks.calibration import CalibrationMonitor
from lightning_losses.callbacks.drift import DriftMonitor
from lightning_losses.callbacks.entropy import EntropyMonitor
from lightning_losses.callbacks.entropy_law import EntropyLaw
from lightning_losses.callbacks.entropy_target import EntropyTarget
from lightning_losses.callbacks.gradient_rms import GradientRmsMonitor
from lightning_losses.callbacks.information_plane import InformationPlaneMonitor
from lightning_losses.callbacks.logit_health import LogitHealthMonitor
from lightning_losses.callbacks.monitor import Monitor
from lightning_losses.callbacks.neural_collapse import NeuralCollapseMonitor
from lightning_losses.callbacks.perp_grad import PerpGrad
from lightning_losses.callbacks.post_hoc_calibration import PostHocCalibration
from lightning_losses.callbacks.representation_entropy import RepresentationEntropyMonitor
from lightning_losses.callbacks.scaling_forecast import ScalingForecast
from lightning_losses.callbacks.step_radius import StepRadiusMonitor
from lightning_losses.callbacks.step_radius_controller import StepRadiusController
from lightning_losses.callbacks.term_balance import TermBalanceMonitor

__all__ = [
    "AttentionEntropyMonitor",
    "CalibrationMonitor",
    "DriftMonitor",
    "EntropyLaw",
    "EntropyMonitor",
    "EntropyTarget",
    "GradientRmsMonitor",
    "InformationPlaneMonitor",
    "LogitHealthMonitor",
    "Monitor",
    "NeuralCollapseMonitor",
    "PerpGrad",
    "PostHocCalibration",
    "RepresentationEntropyMonitor",
    "ScalingForecast",
    "StepRadiusController",
    "StepRadiusMonitor",
    "TermBalanceMonitor",
]
