# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Cauchy-Schwarz divergence and mutual information of batches, by kernels."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.losses.shared.gram import log_gram, together
from lightning_losses.losses.shared.validation import same_rows


class CSDivergence(nn.Module):
    """How far p(estimate | features) is from p(reference | features), in bits; 0 where equal.

    Yu et al., "Cauchy-Schwarz Divergence Information Bottleneck for Regression", arXiv 2404.17951.
    Beside `cs_qmi` on representation and input it is their information bottleneck.

    Args:
        sigma: width of the Gaussian kernel, in the unit of features and values alike.

    Shapes: features ``(N, D)``, estimate and reference ``(N, ...)``; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        check_sigma(sigma)
        self.sigma = sigma

    def forward(
        self, features: Tensor, estimate: Tensor, reference: Tensor, valid: Tensor | None = None
    ) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(features=features, estimate=estimate, reference=reference, valid=valid)
        (x, found, wanted), counts = together(features, estimate, reference, valid=valid)
        near = log_gram(x, x, counts, self.sigma)
        own = (2 * near).logsumexp(1)

        def overlap(a: Tensor, b: Tensor) -> Tensor:
            both = near + log_gram(a, b, counts, self.sigma)
            # A row that does not count would add exp(0): both sums are as low.
            rows = torch.where(counts, both.logsumexp(1) - own, -torch.inf)
            return rows.clamp(min=-1e4).logsumexp(0)

        loss = overlap(wanted, wanted) + overlap(found, found) - 2 * overlap(found, wanted)
        return torch.where(counts.any(), loss / math.log(2), 0.0)


class CSMutualInformation(nn.Module):
    """Quadratic mutual information of features and reference, in bits; 0 where independent.

    Principe, "Information Theoretic Learning" (2010); in arXiv 2404.17951 with weight 0.01 between
    the representation and the input.

    Args:
        sigma: width of the Gaussian kernel.

    Shapes: features ``(N, D)``, reference ``(N, ...)``; one number.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        check_sigma(sigma)
        self.sigma = sigma

    def forward(self, features: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(features=features, reference=reference, valid=valid)
        (x, y), counts = together(features, reference, valid=valid)
        a, b = log_gram(x, x, counts, self.sigma), log_gram(y, y, counts, self.sigma)
        rows = a.logsumexp(1) + b.logsumexp(1)
        apart = a.flatten().logsumexp(0) + b.flatten().logsumexp(0)
        # Powers of the number of rows cancel: 2 + 4 = 2 * 3.
        loss = (a + b).flatten().logsumexp(0) + apart - 2 * rows.logsumexp(0)
        return torch.where(counts.any(), loss / math.log(2), 0.0)


class KdeKL(nn.Module):
    """Mean over the rows of reference of ``log`` of its kernel density over that of estimate there.

    ``mean_i [log sum_j G(y_i, y_j) - log sum_j G(y_i, e_j)]``: 0 where the two sets of rows are the
    same, in whatever order, so it stands beside a loss that pairs them. A baseline of arXiv
    2404.17951, whose code takes the density of reference at the estimates and is least at a
    constant.

    Args:
        sigma: width of the Gaussian kernel, in the unit of the values.

    Shapes: estimate and reference ``(N, ...)``; one number, in nats.
    """

    scope = "batch"
    contract = Contract(target=("none",), head="none")

    def __init__(self, sigma: float = 1.0) -> None:
        super().__init__()
        check_sigma(sigma)
        self.sigma = sigma

    def forward(self, estimate: Tensor, reference: Tensor, valid: Tensor | None = None) -> Tensor:
        """The loss of the batch, 0-dim."""
        same_rows(estimate=estimate, reference=reference, valid=valid)
        (found, wanted), counts = together(estimate, reference, valid=valid)
        own = log_gram(wanted, wanted, counts, self.sigma).logsumexp(1)
        other = log_gram(wanted, found, counts, self.sigma).logsumexp(1)
        rows = torch.where(counts, own - other, 0.0)
        return rows.sum() / counts.sum().clamp(min=1)


def check_sigma(sigma: float) -> None:
    """Raise ValueError for a width that is none."""
    if not sigma > 0:
        raise ValueError(f"sigma must be positive, got {sigma}.")
