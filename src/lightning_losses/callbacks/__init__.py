# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Monitors (read records) and controllers (also act), one a file."""

from lightning_losses.callbacks.calibration import CalibrationMonitor
from lightning_losses.callbacks.entropy import EntropyMonitor
from lightning_losses.callbacks.monitor import Monitor
from lightning_losses.callbacks.step_radius import StepRadiusMonitor

__all__ = ["CalibrationMonitor", "EntropyMonitor", "Monitor", "StepRadiusMonitor"]
