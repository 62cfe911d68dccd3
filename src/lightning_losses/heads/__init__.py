# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Heads: modules that own class weights and turn features into logits."""

from lightning_losses.heads.harmonic import HarmonicHead

__all__ = [
    "HarmonicHead",
]
