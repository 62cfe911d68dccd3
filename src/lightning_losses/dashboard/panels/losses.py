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
