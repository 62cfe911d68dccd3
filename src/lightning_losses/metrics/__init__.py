# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics that stream: torchmetrics classes whose memory does not grow with the data."""

from lightning_losses.metrics.calibration import StreamingCalibration, TopLabel, top_label

__all__ = ["StreamingCalibration", "TopLabel", "top_label"]
