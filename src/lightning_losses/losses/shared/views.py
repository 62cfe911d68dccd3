# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Two views of the samples of a batch, however the step passed them."""

from __future__ import annotations

from torch import Tensor

from lightning_losses.contract import Contract

#: Contract of losses that read two views and no target.
TWO_VIEWS = Contract(target=("none",), head="none", same_columns=(("features", "other_features"),))


def two_views(features: Tensor, other_features: Tensor | None) -> tuple[Tensor, Tensor]:
    """Two tensors ``(B, D)`` from two arguments, or from features ``(B, 2, D)``.

    Raises:
        ValueError: if there are not two, or they differ in shape.
    """
    if other_features is not None and features.shape == other_features.shape:
        return features, other_features
    if other_features is None and features.ndim == 3 and features.shape[1] == 2:
        return features[:, 0], features[:, 1]
    found = [tuple(x.shape) for x in (features, other_features) if x is not None]
    raise ValueError(
        f"Two views of the same samples are needed, got {' and '.join(map(str, found))}: pass "
        "features (B, 2, D), or features (B, D) and other_features (B, D)."
    )
