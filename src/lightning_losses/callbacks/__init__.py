# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors (read records) and controllers (also act), one a file."""

from lightning_losses.callbacks.balance_parts.aggregator import Aggregator
from lightning_losses.callbacks.balance_parts.rules import (
    DWA,
    GradNorm,
    ReLoBRaLo,
    Uncertainty,
)
from lightning_losses.callbacks.base.monitor import Monitor
from lightning_losses.callbacks.controllers.elastic_memory import ElasticMemory
from lightning_losses.callbacks.controllers.entropy_target import EntropyTarget
from lightning_losses.callbacks.controllers.perp_grad import PerpGrad
from lightning_losses.callbacks.controllers.post_hoc_calibration import PostHocCalibration
from lightning_losses.callbacks.controllers.step_radius_controller import StepRadiusController
from lightning_losses.callbacks.controllers.term_balancer import TermBalancer
from lightning_losses.callbacks.monitors.attention_entropy import AttentionEntropyMonitor
from lightning_losses.callbacks.monitors.calibration import CalibrationMonitor
from lightning_losses.callbacks.monitors.drift import DriftMonitor
from lightning_losses.callbacks.monitors.entropy import EntropyMonitor
from lightning_losses.callbacks.monitors.entropy_law import EntropyLaw
from lightning_losses.callbacks.monitors.gradient_rms import GradientRmsMonitor
from lightning_losses.callbacks.monitors.information_plane import InformationPlaneMonitor
from lightning_losses.callbacks.monitors.logit_health import LogitHealthMonitor
from lightning_losses.callbacks.monitors.loss_by import LossByMonitor
from lightning_losses.callbacks.monitors.neural_collapse import NeuralCollapseMonitor
from lightning_losses.callbacks.monitors.ood import OODMonitor
from lightning_losses.callbacks.monitors.representation_entropy import RepresentationEntropyMonitor
from lightning_losses.callbacks.monitors.sample_value import SampleValueMonitor
from lightning_losses.callbacks.monitors.scaling_forecast import ScalingForecast
from lightning_losses.callbacks.monitors.step_radius import StepRadiusMonitor
from lightning_losses.callbacks.monitors.term_balance import TermBalanceMonitor

__all__ = [
    "DWA",
    "Aggregator",
    "AttentionEntropyMonitor",
    "CalibrationMonitor",
    "DriftMonitor",
    "ElasticMemory",
    "EntropyLaw",
    "EntropyMonitor",
    "EntropyTarget",
    "GradNorm",
    "GradientRmsMonitor",
    "InformationPlaneMonitor",
    "LogitHealthMonitor",
    "LossByMonitor",
    "Monitor",
    "NeuralCollapseMonitor",
    "OODMonitor",
    "PerpGrad",
    "PostHocCalibration",
    "ReLoBRaLo",
    "RepresentationEntropyMonitor",
    "SampleValueMonitor",
    "ScalingForecast",
    "StepRadiusController",
    "StepRadiusMonitor",
    "TermBalanceMonitor",
    "TermBalancer",
    "Uncertainty",
]
