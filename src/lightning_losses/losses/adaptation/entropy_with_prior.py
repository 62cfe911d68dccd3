# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Source-free adaptation of a segmentation: sure pixels, and classes as often as is expected."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import all_sum, reduce_with_gradient
from lightning_losses.losses.shared.constant import constant
from lightning_losses.losses.shared.maps import pixels
from lightning_losses.losses.shared.rows_math import LOWEST, log_softmax
from lightning_losses.losses.shared.validation import check_length, same_rows


class EntropyWithPrior(nn.Module):
    """Weighted entropy of the pixels, plus KL of an image's class shares from those expected.

    Bateson et al., "Source-Free Domain Adaptation for Image Segmentation", arXiv 2108.03152. The
    first part is ``-sum w_c p log p``, mean over pixels; the second ``KL(share || prior)``, mean
    over images, where each pixel adds ``p / max p`` to the shares.

    Args:
        class_weight: w, one a class; None for 1. The authors have 0.1 for the background, 0.9.
        entropy_weight: of the first part.
        prior_weight: of the second.

    Shapes: logit_map ``(B, C, ...)``, class_prior ``(B, C)`` shares or counts of pixels, positive.
    One number for the images of all ranks; 0 if no pixel counts.

    Raises:
        ValueError: weights of another number of classes, a prior of another shape.
    """

    scope = "batch"
    contract = Contract(target=("none",), same_columns=(("logit_map", "class_prior"),))

    def __init__(
        self,
        class_weight: Sequence[float] | None = None,
        entropy_weight: float = 1.0,
        prior_weight: float = 1.0,
    ) -> None:
        super().__init__()
        if not (entropy_weight >= 0 and prior_weight >= 0):
            raise ValueError(
                "entropy_weight and prior_weight must be at least 0, got "
                f"{entropy_weight} and {prior_weight}."
            )
        self.class_weight = None if class_weight is None else tuple(map(float, class_weight))
        self.entropy_weight, self.prior_weight = entropy_weight, prior_weight

    def forward(
        self, logit_map: Tensor, class_prior: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(logit_map=logit_map, class_prior=class_prior)
        classes = logit_map.shape[1]
        if class_prior.shape != logit_map.shape[:2]:
            raise ValueError(
                f"class_prior must be {tuple(logit_map.shape[:2])}, a share a class and image "
                f"beside logit_map {tuple(logit_map.shape)}, got {tuple(class_prior.shape)}."
            )
        every = torch.ones_like(logit_map[:, :1], dtype=torch.bool)
        counts = every & pixels(valid, every)
        z = torch.where(counts, logit_map, 0.0).clamp(min=LOWEST)
        log_p = log_softmax(z.movedim(1, -1)).movedim(-1, 1)
        p = log_p.exp()
        weight = (1.0,) * classes if self.class_weight is None else self.class_weight
        check_length("class_weight", len(weight), classes)
        w = constant(weight, p).reshape(-1, *[1] * (p.ndim - 2))
        entropy = -torch.where(counts, w * p * log_p, 0).sum()
        shares, there = class_shares(p, counts), counts.flatten(1).any(1)
        prior = torch.where(there[:, None], class_prior.detach(), 1).to(p.dtype)
        prior = prior / prior.sum(1, keepdim=True)
        tiny = torch.finfo(p.dtype).tiny
        gap = shares.clamp(min=tiny).log() - prior.clamp(min=tiny).log()
        kl = torch.where(there, (shares * gap).sum(1), 0).sum()
        sums = reduce_with_gradient(torch.stack([entropy, kl]))
        number = all_sum(torch.stack([counts.sum(), there.sum()]).to(p.dtype)).clamp(min=1)
        both = sums / number
        return self.entropy_weight * both[0] + self.prior_weight * both[1]

    def batch_divisor(self, logit_map: Tensor, valid: Tensor | None = None, **_: Tensor) -> Tensor:
        """The pixels that count."""
        every = torch.ones_like(logit_map[:, :1], dtype=torch.bool)
        return (every & pixels(valid, every)).sum()


def class_shares(p: Tensor, counts: Tensor) -> Tensor:
    """How much of an image each class has ``(B, C)``, of probabilities ``(B, C, ...)``.

    Each pixel adds ``p / max p``. ``counts`` is ``(B, 1, ...)`` bool; 0 where no pixel counts.
    """
    shares = torch.where(counts, p / p.amax(1, keepdim=True), 0).flatten(2).sum(2)
    there = counts.flatten(1).any(1)
    return shares / torch.where(there, shares.sum(1), 1)[:, None]
