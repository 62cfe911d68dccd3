# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Measures of representations: diffusion spectral entropy, and entropy of binned activations."""

from __future__ import annotations

from typing import Any

import torch

from adapters.table import adapter
from lightning_losses.metrics.representation.ebab import adaptive_edges, codes, joint_entropy
from lightning_losses.metrics.representation.spectral_entropy import (
    diffusion_kernel,
    diffusion_spectral_entropy,
)

Inputs = dict[str, Any]


@adapter("dse")
def dse(inputs: Inputs, params: Inputs) -> Inputs:
    x, bandwidth = inputs["embeddings"], params["gaussian_kernel_sigma"]
    if params.get("matrix_entry_entropy"):  # of the kernel with rows that add up to 1
        kernel = diffusion_kernel(x, bandwidth)
        p = kernel / kernel.sum(1, keepdim=True) / len(x)
        return {"entropy_bits": -(p * torch.log2(p)).sum()}
    return {"entropy_bits": diffusion_spectral_entropy(x, bandwidth, params["t"])}


@adapter("ebab")
def ebab(inputs: Inputs, params: Inputs) -> Inputs:
    x = inputs["activations"]
    edges = adaptive_edges(x, params["num_bins"], params["low"])
    code = codes(x, edges)
    return {"bin_edges": edges, "codes": code, "joint_entropy_bits": joint_entropy(code)}
