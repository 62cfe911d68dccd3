# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Panels about the objective: what is minimised, by which terms, and how it will end."""

from __future__ import annotations

from lightning_losses.dashboard.panels.panel import Line, Panel

LOSSES = (
    Panel(
        "loss",
        "Losses",
        "Loss",
        ("train/loss", "val/loss", "train/*/loss", "val/*/loss"),
        "The weighted sum of all terms, on training batches and on the validation set.",
        "both fall together; val rising while train falls is overfitting",
        "LossMixin.compute_loss",
        scale="auto",
        summary="min",
    ),
    Panel(
        "terms",
        "Losses",
        "Terms, raw",
        ("train/loss/*", "val/loss/*", "train/*/loss/*", "val/*/loss/*"),
        "Each term of the objective before its weight. Multiply by the weight for its share.",
        "the term you care for falls; a term that rises is being traded away",
        "LossMixin.compute_loss",
        scale="auto",
    ),
    Panel(
        "diagnostics",
        "Losses",
        "What the terms tell beside their value",
        (
            "train/diagnostics/*",
            "val/diagnostics/*",
            "train/*/diagnostics/*",
            "val/*/diagnostics/*",
        ),
        "Means over the rows that count, such as the share of rows with a pair that contributes.",
        "an active share above 0: at 0 the term teaches nothing, solved or without pairs",
        "LossMixin.compute_loss",
        scale="auto",
        detail=True,
    ),
    Panel(
        "weights",
        "Losses",
        "Weights",
        ("train/weight/*", "train/*/weight/*"),
        "The weight of each term, where a schedule or a controller moves it.",
        "follows the schedule you wrote",
        "a schedule on a term's weight",
    ),
    Panel(
        "share",
        "Losses",
        "Share of the gradient",
        ("term_balance/share/*",),
        "How much of the summed gradient length comes from each weighted term.",
        "no term holds nearly all of it, unless the others are meant as small corrections",
        "TermBalanceMonitor",
        unit="fraction",
    ),
    Panel(
        "cosine",
        "Losses",
        "Do the terms agree?",
        ("term_balance/cosine/*",),
        "Cosine between the gradients of two terms: 1 pull together, 0 unrelated, -1 opposed.",
        "above 0; steadily below it the terms undo each other",
        "TermBalanceMonitor",
        lines=(Line(0.0, "unrelated", above=False),),
    ),
    Panel(
        "gradient_norm",
        "Losses",
        "Gradient length of each term",
        ("term_balance/norm/*",),
        "Euclidean length of each weighted term's gradient.",
        "same order of magnitude throughout; sudden jumps deserve a look",
        "TermBalanceMonitor",
        scale="auto",
        detail=True,
    ),
)

GROUPS = (
    Panel(
        "worst_group",
        "Losses",
        "The worst group",
        ("loss_by/*/worst_loss", "loss_by/*/gap", "loss_by/*/gap_to_best"),
        "Mean loss of the group that has the largest, and by how much it is above the mean over "
        "rows and above the best group.",
        "falls with the loss; a gap that grows means that others pay for the mean",
        "LossByMonitor",
        unit="nats",
        join="max",
        summary="min",
    ),
    Panel(
        "loss_by_group",
        "Losses",
        "Loss by group",
        ("loss_by/*/loss/*",),
        "Mean loss over the rows of each group; all of them are in loss_by.csv.",
        "all fall",
        "LossByMonitor",
        unit="nats",
        detail=True,
    ),
    Panel(
        "accuracy_by_group",
        "Losses",
        "Accuracy and calibration by group",
        ("loss_by/*/accuracy/*", "loss_by/*/worst_accuracy", "loss_by/*/worst_calibration"),
        "Share of rows that are right in each group, the least of them, and the largest distance "
        "between a group's confidence and accuracy.",
        "accuracies rise together, worst_calibration stays small",
        "LossByMonitor",
        unit="fraction",
        detail=True,
    ),
    Panel(
        "group_distance",
        "Losses",
        "How far apart groups are predicted",
        ("loss_by/*/js_distance",),
        "Largest Jensen-Shannon distance between the mean predictions of two groups, 0 to 1.",
        "as far apart as their labels are",
        "LossByMonitor",
        detail=True,
    ),
    Panel(
        "samples",
        "Losses",
        "Samples that are not learned",
        ("sample_value/forgotten", "sample_value/never_learned"),
        "Share of training samples that were right and then wrong at least once, and of those that "
        "were never right. The most suspect ones are in sample_value.csv.",
        "never_learned falls; what stays is hard, rare or wrongly labelled",
        "SampleValueMonitor",
        unit="fraction",
    ),
    Panel(
        "sample_error",
        "Losses",
        "Mean error and margin of the samples",
        ("sample_value/el2n", "sample_value/aum"),
        "Mean length of the error of the probabilities, and mean margin of the right logit over "
        "the others, over all presentations so far.",
        "el2n falls, the margin grows",
        "SampleValueMonitor",
        detail=True,
    ),
)

FORECAST = (
    Panel(
        "forecast",
        "Forecast",
        "Predicted final loss",
        ("forecast/loss", "forecast/low", "forecast/high"),
        "The final loss predicted at each step, with its spread (low to high).",
        "settles, and the band narrows",
        "ScalingForecast",
        kind="band",
    ),
    Panel(
        "forecast_residual",
        "Forecast",
        "How well the fitted law describes the loss so far",
        ("forecast/residual",),
        "Spread of the loss around the fitted curve.",
        "small and steady; growing means that the law does not hold here",
        "ScalingForecast",
        detail=True,
    ),
)
