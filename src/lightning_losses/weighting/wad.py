# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""WAD: rows weigh by how clearly one class is more similar to them than the next."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn


class SimilarityGap(nn.Module):
    """Weights ``s_1 - s_2``, the two largest class similarities of a row, at least 0.

    Weight-aware distillation, Du et al., arXiv 2308.11874: pseudo-labels count by how sure a frozen
    similarity is of them; the step passes ``class_similarity`` and, as target, its argmax. The
    authors write ``s_1 (1 - s_2 / s_1)``, the same but for a division by 0.

    Examples:
        >>> similarity = torch.tensor([[0.7, 0.2, 0.1], [0.4, 0.4, 0.2]])
        >>> SimilarityGap()(torch.zeros(2), torch.tensor([True, True]), similarity)
        tensor([0.5000, 0.0000])
    """

    def forward(self, losses: Tensor, valid: Tensor, class_similarity: Tensor) -> Tensor:
        """Weights ``(N,)``; their mean is not 1."""
        # A second class of similarity 0 where there is only one.
        two = F.pad(class_similarity, (0, max(2 - class_similarity.shape[1], 0))).topk(2, dim=1)
        return (two.values[:, 0] - two.values[:, 1]).clamp(min=0)
