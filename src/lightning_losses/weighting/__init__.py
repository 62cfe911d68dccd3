# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Row weightings: weights ``(N,)`` from the row losses, applied without graph."""

from lightning_losses.weighting.energy import EnergyWeight
from lightning_losses.weighting.gibbs import Gibbs
from lightning_losses.weighting.group_dro import GroupDRO
from lightning_losses.weighting.high_entropy import HighEntropyMask
from lightning_losses.weighting.kl_dro import KLDRO
from lightning_losses.weighting.loss_reweighting import LossReweighting
from lightning_losses.weighting.sequence import SequenceWeight
from lightning_losses.weighting.steer import Steer
from lightning_losses.weighting.test_time import AgreesWithSource, ReliableRows
from lightning_losses.weighting.wad import SimilarityGap

__all__ = [
    "KLDRO",
    "AgreesWithSource",
    "EnergyWeight",
    "Gibbs",
    "GroupDRO",
    "HighEntropyMask",
    "LossReweighting",
    "ReliableRows",
    "SequenceWeight",
    "SimilarityGap",
    "Steer",
]
