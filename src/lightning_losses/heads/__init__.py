# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Heads: modules that own class weights and turn features into logits."""

from lightning_losses.heads.concept_bottleneck import ConceptBottleneckHead
from lightning_losses.heads.fourier import FourierHead
from lightning_losses.heads.harmonic import HarmonicHead
from lightning_losses.heads.harmonic_distance import HarmonicDistanceHead
from lightning_losses.heads.hyperbolic_mlr import HyperbolicMLR
from lightning_losses.heads.normalized import ArcFaceHead, CosFaceHead, NormalizedHead

__all__ = [
    "ArcFaceHead",
    "ConceptBottleneckHead",
    "CosFaceHead",
    "FourierHead",
    "HarmonicDistanceHead",
    "HarmonicHead",
    "HyperbolicMLR",
    "NormalizedHead",
]
