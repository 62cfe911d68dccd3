# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Metrics that stream: torchmetrics classes whose memory does not grow with the data."""

from lightning_losses.metrics.calibration.brier_groups import BrierByPrediction
from lightning_losses.metrics.calibration.classwise import ClasswiseCalibration
from lightning_losses.metrics.calibration.conformal import (
    ConformalThreshold,
    class_scores,
    conformal_interval,
    conformal_threshold,
    interval_scores,
    prediction_sets,
)
from lightning_losses.metrics.calibration.corp import brier_corp
from lightning_losses.metrics.calibration.histogram import ConfidenceHistogram
from lightning_losses.metrics.calibration.kernel_ece import ece_kde, loo_bandwidth
from lightning_losses.metrics.calibration.psi import psi
from lightning_losses.metrics.calibration.split_point import (
    split_point_class_discrepancy,
    split_point_discrepancy,
    split_point_scale,
)
from lightning_losses.metrics.calibration.streaming import StreamingCalibration
from lightning_losses.metrics.calibration.top_label import TopLabel, binary_event, top_label
from lightning_losses.metrics.entropy.attention import attention_entropy
from lightning_losses.metrics.entropy.attention_bound import entropy_lower_bound
from lightning_losses.metrics.importance.fisher import fisher_diagonal
from lightning_losses.metrics.language.best_of_n import best_of_n_kl_bound
from lightning_losses.metrics.language.membership import dc_pdd, min_k
from lightning_losses.metrics.regression.gaussian import GaussianCalibration
from lightning_losses.metrics.regression.intervals import IntervalCoverage
from lightning_losses.metrics.regression.quantiles import (
    aggregate_quantiles,
    isotonic_quantiles,
    sort_quantiles,
)
from lightning_losses.metrics.regression.scores import (
    crps_gaussian,
    interval_score,
    nll_gaussian,
    quantile_score,
    weighted_interval_score,
)
from lightning_losses.metrics.representation.ebab import layer_information
from lightning_losses.metrics.representation.neural_collapse import NeuralCollapse
from lightning_losses.metrics.representation.spectral_entropy import (
    classic_entropy,
    diffusion_spectral_entropy,
    diffusion_spectral_mutual_information,
)
from lightning_losses.metrics.representation.utilization import utilization
from lightning_losses.metrics.step_radius.exact import exact_radius
from lightning_losses.metrics.topology.betti import BettiError, betti_error, betti_numbers
from lightning_losses.metrics.training_curve.lr_sensitivity import lr_sensitivity
from lightning_losses.metrics.training_curve.onset import onset_step
from lightning_losses.metrics.training_curve.scaling_law import forecast

__all__ = [
    "BettiError",
    "BrierByPrediction",
    "ClasswiseCalibration",
    "ConfidenceHistogram",
    "ConformalThreshold",
    "GaussianCalibration",
    "IntervalCoverage",
    "NeuralCollapse",
    "StreamingCalibration",
    "TopLabel",
    "aggregate_quantiles",
    "attention_entropy",
    "best_of_n_kl_bound",
    "betti_error",
    "betti_numbers",
    "binary_event",
    "brier_corp",
    "class_scores",
    "classic_entropy",
    "conformal_interval",
    "conformal_threshold",
    "crps_gaussian",
    "dc_pdd",
    "diffusion_spectral_entropy",
    "diffusion_spectral_mutual_information",
    "ece_kde",
    "entropy_lower_bound",
    "exact_radius",
    "fisher_diagonal",
    "forecast",
    "interval_score",
    "interval_scores",
    "isotonic_quantiles",
    "layer_information",
    "loo_bandwidth",
    "lr_sensitivity",
    "min_k",
    "nll_gaussian",
    "onset_step",
    "prediction_sets",
    "psi",
    "quantile_score",
    "sort_quantiles",
    "split_point_class_discrepancy",
    "split_point_discrepancy",
    "split_point_scale",
    "top_label",
    "utilization",
    "weighted_interval_score",
]
