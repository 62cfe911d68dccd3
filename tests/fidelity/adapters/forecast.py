# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Laws of the final loss over runs."""

from __future__ import annotations

import math
from typing import Any

import torch

from adapters.table import adapter
from lightning_losses.metrics.training_curve.run_laws import (
    Bivariate,
    GroupQuantization,
    Hoffmann,
    Kaplan,
    Mixture,
    fit_hoffmann,
    objective,
)

Inputs = dict[str, Any]


@adapter("forecast.kaplan")
def kaplan(inputs: Inputs, params: Inputs) -> Inputs:
    law = Kaplan(params["alpha_N"], params["N_c"], params["alpha_D"], params["D_c"])
    n, d = inputs["N"], inputs["D"]
    return {"loss_N": law.of_n(n), "loss_D": law.of_d(d), "loss_ND": law.loss(n, d)}


@adapter("forecast.hoffmann")
def hoffmann(inputs: Inputs, params: Inputs) -> Inputs:
    if "compute" in inputs:
        law = Hoffmann(*(params[name] for name in ("E", "A", "B", "alpha", "beta")))
        best = law.best(inputs["compute"], params["flops_per_token_parameter"])
        return {
            "N": best.n,
            "D": best.d,
            "loss": best.loss,
            "tokens_per_parameter": best.d / best.n,
            "exponent_N": law.exponent_n,
        }
    return fitted(inputs, params)


def fitted(inputs: Inputs, params: Inputs) -> Inputs:
    runs = inputs["N"], inputs["D"], inputs["loss"]
    if "points" in inputs:
        laws = [
            Hoffmann(*(math.exp(at[n]) for n in "eab"), at["alpha"], at["beta"])
            for at in inputs["points"]
        ]
        return {"objective": [objective(law, *runs, params["delta"]) for law in laws]}
    found = fit_hoffmann(*(values.tolist() for values in runs), 0, params["delta"])
    size = {"N": 3e9, "D": 6e10}
    at = {name: torch.tensor(value, dtype=torch.float64) for name, value in size.items()}
    return {
        "E": found.law.e,
        "A": found.law.a,
        "B": found.law.b,
        "alpha": found.law.alpha,
        "beta": found.law.beta,
        "objective": found.objective,
        "prediction_at": {**size, "loss": found.law.loss(at["N"], at["D"])},
    }


@adapter("forecast.mixture")
def mixture(inputs: Inputs, params: Inputs) -> Inputs:
    law = Mixture(
        *(
            torch.tensor(params[name], dtype=torch.float64)
            for name in ("E", "A", "B", "alpha", "beta", "gamma")
        )
    )
    n, d = inputs["N"], inputs["D"]
    return {
        "loss": law.loss(n, d, inputs["ratios"]),
        "optimal_ratios": law.best_shares(n, d),
        "optimal_ratios_normalised": law.best_shares(n, d, 1 / law.alone(n, d)),
    }


@adapter("forecast.nmt_bivariate")
def bivariate(inputs: Inputs, params: Inputs) -> Inputs:
    law = Bivariate(*(params[name] for name in ("alpha", "N_e", "N_d", "p_e", "p_d", "L_inf")))
    return {
        "loss": law.loss(inputs["N_encoder"], inputs["N_decoder"]),
        "optimal_share_encoder": law.best_encoder_share,
    }


@adapter("forecast.qat_group")
def qat_group(inputs: Inputs, params: Inputs) -> Inputs:
    law = GroupQuantization(*(params[name] for name in ("k", "gamma_N", "gamma_D", "gamma_G")))
    return {"delta": law.loss(inputs["N"], inputs["D"], inputs["group"].double())}
