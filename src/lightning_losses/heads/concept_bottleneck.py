# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""A concept bottleneck: classes are told from concepts alone, and concepts from few features."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class ConceptBottleneckHead(nn.Module):
    """Features to concepts to classes, two linear maps without bias.

    The layers of Semenov et al., "Sparse Concept Bottleneck Models: Gumbel Tricks in Contrastive
    Learning", arXiv 2404.03323, where features are the similarities of an image to the texts of
    concepts. Concepts are made sparse by the penalty here, or by the loss `concept_bottleneck`, for
    which the step takes the two maps one by one; the same where concepts have labels or are to be
    changed by hand::

        c = self.head.concepts(h)
        return self.compute_loss(logits=self.head.classes(c), target=y, concept_logits=c)

    Args:
        in_features: D; in the paper the number of concepts.
        out_features: number of classes.
        num_concepts: K.
        regularization: weight of the mean over concepts of the absolute weights of each; 1e-3 in
            the authors' code.

    After a forward with gradients ``aux_loss`` holds the penalty, 0-dim; add it to the loss.

    Shapes: features ``(..., D)`` to logits ``(..., classes)``, float32 at least.

    Raises:
        ValueError: fewer than one concept, or a negative regularization.

    Examples:
        >>> head = ConceptBottleneckHead(8, 10, num_concepts=4, regularization=1e-3)
        >>> head.concepts(torch.ones(2, 8)).shape, head(torch.ones(2, 8)).shape
        (torch.Size([2, 4]), torch.Size([2, 10]))
        >>> head.aux_loss.shape  # add it to the loss
        torch.Size([])
    """

    aux_loss: Tensor | None

    def __init__(
        self, in_features: int, out_features: int, num_concepts: int, regularization: float = 0.0
    ) -> None:
        super().__init__()
        if num_concepts < 1 or not regularization >= 0:
            raise ValueError(
                f"num_concepts must be at least 1 and regularization at least 0, got "
                f"{num_concepts} and {regularization}."
            )
        self.concepts = nn.Linear(in_features, num_concepts, bias=False)
        self.classes = nn.Linear(num_concepts, out_features, bias=False)
        self.regularization = regularization
        self.aux_loss = None

    def forward(self, features: Tensor) -> Tensor:
        """Logits ``(..., classes)``."""
        dtype = torch.promote_types(features.dtype, torch.float32)
        with torch.autocast(features.device.type, enabled=False):
            weight = self.concepts.weight.to(dtype)
            concepts = nn.functional.linear(features.to(dtype), weight)
            self.aux_loss = None
            if self.regularization and torch.is_grad_enabled():
                self.aux_loss = self.regularization * weight.abs().sum() / weight.shape[0]
            return nn.functional.linear(concepts, self.classes.weight.to(dtype))
