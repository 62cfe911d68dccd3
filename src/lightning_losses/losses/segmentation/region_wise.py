# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Region-wise loss: each class has a price at each pixel, most often a distance."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.maps import pixels
from lightning_losses.losses.shared.rows_math import LOWEST


class RegionWise(nn.Module):
    """Mean over pixels and classes of ``p M``, M the map of prices.

    Valverde and Tohka, "Region-wise Loss for Biomedical Image Segmentation", arXiv 2108.01405. In
    their rectified maps M is 1 outside a class, and inside it minus the distance to the outside
    over the largest such distance (scipy.ndimage.distance_transform_edt, in the data loader). The
    value is negative for good predictions.

    Shapes: logit_map ``(B, C, ...)``, region_map ``(B, C, ...)``; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logit_map", "region_map"),))

    def forward(self, logit_map: Tensor, region_map: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        if region_map.shape != logit_map.shape:
            raise ValueError(
                f"region_map must be {tuple(logit_map.shape)}, as logit_map, got "
                f"{tuple(region_map.shape)}."
            )
        every = torch.ones_like(logit_map[:, :1], dtype=torch.bool)
        counts = every & pixels(valid, every)
        z, prices = (torch.where(counts, x, 0.0) for x in (logit_map, region_map))
        p = z.sigmoid() if z.shape[1] == 1 else z.clamp(min=LOWEST).softmax(1)
        total = reduce_with_gradient((p * prices).sum())
        return total / (all_sum(counts.sum()) * z.shape[1]).clamp(min=1)
