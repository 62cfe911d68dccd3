# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Target transforms: from a target to a soft target ``(N, C)`` in front of a loss."""

from lightning_losses.targets.crowd import conflation, crowd_targets, likelihood_weights
from lightning_losses.targets.hl_gauss import HLGauss
from lightning_losses.targets.label_smoothing import LabelSmoothing
from lightning_losses.targets.two_hot import TwoHot

__all__ = [
    "HLGauss",
    "LabelSmoothing",
    "TwoHot",
    "conflation",
    "crowd_targets",
    "likelihood_weights",
]
