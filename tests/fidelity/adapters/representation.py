# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Measures of representations: diffusion spectral entropy, and entropy of binned activations."""

from __future__ import annotations

from typing import Any

from adapters.table import NotBuilt, adapter
from lightning_losses.metrics.representation.ebab import adaptive_edges, codes, joint_entropy
from lightning_losses.metrics.representation.spectral_entropy import diffusion_spectral_entropy

Inputs = dict[str, Any]


@adapter("dse")
def dse(inputs: Inputs, params: Inputs) -> Inputs:
    if params.get("matrix_entry_entropy", False):
        raise NotBuilt("the entropy of the entries of the diffusion matrix")
    x, bandwidth = inputs["embeddings"], params.get("gaussian_kernel_sigma", 10.0)
    return {"entropy_bits": diffusion_spectral_entropy(x, bandwidth, params.get("t", 1))}


@adapter("ebab")
def ebab(inputs: Inputs, params: Inputs) -> Inputs:
    x = inputs["activations"]
    edges = adaptive_edges(x, params["num_bins"], params.get("low"))
    code = codes(x, edges)
    return {"bin_edges": edges, "codes": code, "joint_entropy_bits": joint_entropy(code)}
