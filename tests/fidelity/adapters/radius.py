# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Step radii: the distance to the nearest singularity of a row's loss, and bounds below it."""

from __future__ import annotations

from typing import Any

from adapters.table import adapter
from lightning_losses.metrics.step_radius.bounds import rho_a, rho_dom, rho_var, spread
from lightning_losses.metrics.step_radius.exact import exact_radius


@adapter("radius")
def radius(inputs: dict[str, Any], params: dict[str, Any]) -> dict[str, Any]:
    z, slopes = (inputs[name].reshape(-1, inputs[name].shape[-1]) for name in ("z", "a"))
    found = {
        "delta_a": spread(slopes, ~z.isneginf()),
        "rho_a": rho_a(slopes, z),
        "rho_dom": rho_dom(z, slopes),
        "rho_var": rho_var(z, slopes),
    }
    if z.shape[1] == 2:
        found["rho_binary_exact"] = found["rho_dom"]
    found["rho_exact"] = exact_radius(z, slopes)
    shape = inputs["z"].shape[:-1]
    return {name: value.reshape(shape) for name, value in found.items()}
