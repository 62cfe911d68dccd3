# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Adapters: from a golden case's inputs and parameters to a call of the public API, by key."""

from adapters import (
    adaptation,
    attention,
    balance,
    beyond,
    calibration,
    calibration_losses,
    catalogue_classification,
    catalogue_more,
    catalogue_sequence,
    catalogue_structure,
    classification,
    distillation,
    dynamics,
    entropy,
    interventions,
    language,
    linear_ce,
    metric_distillation,
    policy,
    radius,
    representation,
)
from adapters.table import ADAPTERS

__all__ = [
    "ADAPTERS",
    "adaptation",
    "attention",
    "balance",
    "beyond",
    "calibration",
    "calibration_losses",
    "catalogue_classification",
    "catalogue_more",
    "catalogue_sequence",
    "catalogue_structure",
    "classification",
    "distillation",
    "dynamics",
    "entropy",
    "interventions",
    "language",
    "linear_ce",
    "metric_distillation",
    "policy",
    "radius",
    "representation",
]
