# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Panels about calibration: reliability, errors, Brier parts, temperature, drift."""

from __future__ import annotations

from lightning_losses.dashboard.panels.panel import Line, Panel


def _calibration(*measures: str) -> tuple[str, ...]:
    return tuple(f"calibration/*/{measure}" for measure in measures)


CALIBRATION = (
    Panel(
        "reliability",
        "Calibration",
        "Reliability diagram",
        (),
        "Rows sorted by how confident the model was; bars show how often it was right. The "
        "lower plot counts the rows, few of them say little.",
        "dots on the diagonal; below it the model is more confident than right",
        "CalibrationMonitor",
        kind="reliability",
        table="reliability",
    ),
    Panel(
        "ece",
        "Calibration",
        "Calibration error",
        _calibration("ece", "ece_equal_mass", "smece*"),
        "Mean distance between confidence and accuracy, in several ways of binning.",
        "falls or stays low; below 0.05 is usual for a calibrated classifier",
        "CalibrationMonitor",
        unit="fraction",
        lines=(Line(0.05, "0.05", above=None),),
        summary="min",
    ),
    Panel(
        "over_under",
        "Calibration",
        "Over- and underconfidence",
        _calibration("gap", "over", "under"),
        "The two parts of the error; gap is mean confidence minus accuracy.",
        "gap near 0; above it overconfident, below it underconfident",
        "CalibrationMonitor",
        unit="fraction",
        lines=(Line(0.0, "neither", above=None),),
    ),
    Panel(
        "brier",
        "Calibration",
        "Brier score and its parts",
        _calibration("brier", "brier_reliability", "brier_resolution", "brier_uncertainty"),
        "Squared error of the probabilities, 0 to 2, and what it is made of.",
        "brier and reliability fall, resolution rises; uncertainty belongs to the data",
        "CalibrationMonitor",
    ),
    Panel(
        "accuracy",
        "Calibration",
        "Accuracy, and does confidence rank the errors?",
        _calibration("accuracy", "auroc_correctness"),
        "Share of rows that are right, and how well confidence tells right from wrong (0.5: not).",
        "both rise",
        "CalibrationMonitor",
        unit="fraction",
        summary="max",
    ),
    Panel(
        "temperature",
        "Calibration",
        "Post-hoc temperature",
        ("post_hoc/temperature",),
        "By what the logits must be divided to be calibrated on validation data.",
        "1; above it the model is overconfident",
        "PostHocCalibration",
        lines=(Line(1.0, "calibrated as it is", above=None),),
    ),
    Panel(
        "post_hoc",
        "Calibration",
        "Before and after the temperature",
        ("post_hoc/*/ece_*", "post_hoc/*/nll_*"),
        "Calibration error and negative log-likelihood with and without the temperature.",
        "after below before; if not, the error is not one of temperature",
        "PostHocCalibration",
        scale="auto",
    ),
    Panel(
        "drift",
        "Calibration",
        "Drift of the confidences",
        ("drift/psi", "drift/psi_standard_error", "drift/psi_chance", "calibration/*/psi"),
        "Population stability index between the reference confidences and the present ones, its "
        "standard error, and what chance alone gives.",
        "below 0.1; above 0.25 the population has changed",
        "DriftMonitor",
        lines=(Line(0.1, "some", above=None), Line(0.25, "changed", above=True)),
        join="max",
    ),
    Panel(
        "ood_auroc",
        "Calibration",
        "Other data told apart: AUROC",
        ("ood/*_auroc",),
        "The chance that a row of the epoch has a higher score than one of the other data.",
        "towards 1; 0.5 is chance, and below it other data looks more familiar than one's own",
        "OODMonitor",
        lines=(Line(0.5, "chance", above=None),),
    ),
    Panel(
        "ood_fpr95",
        "Calibration",
        "Other data taken for one's own: FPR95",
        ("ood/*_fpr95",),
        "The share of the other data above the score that 95 % of the epoch's rows reach.",
        "towards 0; 0.95 is chance",
        "OODMonitor",
        lines=(Line(0.95, "chance", above=None),),
    ),
    Panel(
        "calibration_nll",
        "Calibration",
        "Negative log-likelihood",
        _calibration("nll"),
        "Mean -log p of the right class; no weights, no other terms.",
        "falls; rising while accuracy holds is overconfidence",
        "CalibrationMonitor",
        unit="nats",
        detail=True,
        summary="min",
    ),
    Panel(
        "worst_bins",
        "Calibration",
        "Calibration error, measured otherwise",
        _calibration("ece_debiased", "ece_classwise", "rmsce", "mce", "ks"),
        "Without the bias of few rows (debiased), class by class, squared (rmsce), the worst bin "
        "(mce), and without bins (ks).",
        "falls; mce is noisy where bins hold few rows",
        "CalibrationMonitor",
        unit="fraction",
        detail=True,
    ),
    Panel(
        "selective",
        "Calibration",
        "Risk when the least confident rows are left out",
        _calibration("aurc", "augrc"),
        "Area under the risk-coverage curve, and its generalised form.",
        "falls",
        "CalibrationMonitor",
        detail=True,
    ),
)
