# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""How close the embedded test rows are to what training has explored."""

from __future__ import annotations

import torch
from torch import Tensor

#: Distances that are held at once.
HELD = 2**24


def utilization(query: Tensor, train: Tensor) -> Tensor:
    """Mean over queries of the squared distance to the nearest training row, 0-dim.

    Venkataramanan et al., "It Takes Two to Tango: Mixup for Deep Metric Learning" (Metrix), arXiv
    2106.04990, whose mixed embeddings are to lower it: low says that the space around the test rows
    was explored in training. Scale both to length 1 to compare models. Quadratic in time, in memory
    it goes by chunks. Rows that are not finite make it NaN.

    Args:
        query: ``(Q, D)`` embeddings of test rows.
        train: ``(X, D)`` embeddings of training rows, with mixed ones if they were trained on.

    Raises:
        ValueError: no rows on either side, or embeddings of different lengths.

    Examples:
        >>> train = torch.tensor([[0.0, 0.0], [3.0, 0.0]])
        >>> utilization(torch.tensor([[1.0, 0.0], [3.0, 2.0]]), train)  # (1 + 4) / 2
        tensor(2.5000)
    """
    if query.ndim != 2 or train.ndim != 2 or query.shape[1] != train.shape[1]:
        raise ValueError(
            "utilization takes embeddings (Q, D) and (X, D), got "
            f"{tuple(query.shape)} and {tuple(train.shape)}."
        )
    if not len(query) or not len(train):
        raise ValueError(f"utilization needs rows on both sides, got {len(query)}, {len(train)}.")
    dtype = torch.promote_types(query.dtype, torch.float32)
    query, train = query.to(dtype), train.to(dtype)
    size = max(1, HELD // len(train))
    # Of differences, not of products: near a training row those would cancel.
    exact = "donot_use_mm_for_euclid_dist"
    near = [
        torch.cdist(part, train, compute_mode=exact).amin(1) for part in torch.split(query, size)
    ]
    return torch.cat(near).square().mean()
