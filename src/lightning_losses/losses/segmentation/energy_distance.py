# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Energy distance between sampled segmentations and those of several annotators."""

from __future__ import annotations

from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.sample_sets import distances, read_sets


class EnergyDistance(nn.Module):
    """``E|x - y| - E|x - x'| / 2 - E|y - y'| / 2``, x of the samples, y of the annotators.

    0 where the two sets are the same, whatever their order; for samples of one number and one
    annotator it is the CRPS of the samples. One of the set distances of PULASki (Chatterjee et
    al., arXiv 2312.15686), which stand for the reconstruction term of a probabilistic segmentation
    network: add the KL term of its latent variables yourself. The means include each point with
    itself, as in geomloss, so that S samples of the annotators' own distribution do not reach 0.

    Shapes: estimate ``(B, S, ...)`` S sampled maps of each image (probabilities), reference
    ``(B, A, ...)`` A drawn ones; S and A may differ. Per-image values ``(B,)``.
    """

    scope = "rows"
    contract = Contract(target=("none",), head="none")

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-image values ``(B,)``."""
        x, y = read_sets(estimate, reference, valid)
        across, own, other = (distances(*pair).mean((1, 2)) for pair in ((x, y), (x, x), (y, y)))
        return across - (own + other) / 2
