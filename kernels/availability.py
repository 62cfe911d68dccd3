# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Whether the Triton kernels can run here. Imports no Triton: the package works without it."""

from __future__ import annotations

import importlib.util
import os

import torch

from .problem import Problem

#: Asked here and not where it is used, because compiled code cannot ask.
HAS_TRITON = importlib.util.find_spec("triton") is not None


def unavailable(problem: Problem) -> str | None:
    """Why kernel 'triton' cannot take this problem, as a sentence; None if it can."""
    source = problem.source
    if source.dtype == torch.float64:
        return "It computes in float32, and the input is float64."
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if source.device.type != "cuda" and not (interpreted and source.device.type == "cpu"):
        return f"It runs on CUDA and ROCm devices, and the input is on {source.device}."
    if interpreted and source.dtype == torch.bfloat16:
        return "TRITON_INTERPRET=1 computes bfloat16 wrong without saying so."
    if not HAS_TRITON:
        return "The package triton is not installed."
    return None
