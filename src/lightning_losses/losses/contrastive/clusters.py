# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Contrast with weights a pair, and with the centres of clusters."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient, row_offset
from lightning_losses.losses.shared.pairs import masked_logsumexp, over_blocks
from lightning_losses.losses.shared.rows_math import LOWEST, unit
from lightning_losses.losses.shared.validation import same_rows
from lightning_losses.losses.shared.views import TWO_VIEWS, two_views
from lightning_losses.softmax import may_ask


class WeightedInfoNCE(nn.Module):
    """``log sum_j w_ij exp(s_ij / T) - s_ii / T``: columns of the anchor's own clusters weigh less.

    Yu and Li, "Heterogeneous Graph Contrastive Learning with Meta-path Contexts and Weighted
    Negative Samples" (MEOW), SDM 2023: w_ij is the number of clusterings in which i and j
    are *not* together. So the positive has weight 0, and the value may be negative. With one
    clustering it is what G-SimCLR's pseudo-labels ask for: no negatives of one's own cluster.

    Args:
        temperature: T, positive; the authors tune it.
        add_positive: give the positive weight 1 in the denominator, as InfoNCE has it.

    Shapes: features (anchors) and other_features ``(B, D)``, or features ``(B, 2, D)``; clusters
    ``(B, K)`` int64; per-row values ``(B,)``. A row without a column of weight is 0, and not in
    the diagnostic ``active``. Columns are those of all ranks.
    """

    scope = "pairs"
    contract = TWO_VIEWS
    diagnostics: dict[str, Tensor]

    def __init__(self, temperature: float = 0.4, add_positive: bool = False) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.add_positive = temperature, add_positive

    def forward(
        self,
        features: Tensor,
        clusters: Tensor,
        other_features: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y = two_views(features, other_features)
        if clusters.ndim != 2 or len(clusters) != len(x) or clusters.is_floating_point():
            raise ValueError(
                f"clusters must be ({len(x)}, K) integers, the cluster of each row in each of K "
                f"clusterings, got {clusters.dtype} {tuple(clusters.shape)}: write "
                "clusters[:, None] for one clustering."
            )
        if valid is None:
            valid = torch.ones(len(x), dtype=torch.bool, device=x.device)
        x, y = (unit(torch.where(valid[:, None], side, 0)) for side in (x, y))
        counts, groups, first = (
            gather_with_gradient(valid),
            gather_with_gradient(clusters),
            row_offset(x),
        )
        if not len(counts):
            return x.sum(1)
        column = torch.arange(len(counts), device=x.device)

        def contrast(s: Tensor, start: int, stop: int) -> tuple[Tensor, Tensor]:
            z = s / self.temperature
            apart = torch.zeros_like(z)
            for a, b in zip(clusters[start:stop].t(), groups.t(), strict=True):
                apart = apart + (a[:, None] != b)
            own = torch.arange(start, stop, device=z.device) + first
            if self.add_positive:
                apart = torch.where(own[:, None] == column, 1.0, apart)
            weighs = (apart > 0) & counts[None, :]
            z_own = z.gather(1, own[:, None])[:, 0]
            value = masked_logsumexp(z + apart.clamp(min=1).log(), weighs) - z_own
            some = weighs.any(1)
            return torch.where(some, value, z_own * 0), some

        values, some = over_blocks(contrast, x, gather_with_gradient(y))
        self.diagnostics = {"active": some}
        return values


class PrototypicalContrastive(nn.Module):
    """Cross-entropy of a row's cluster by ``z . c_k / phi_k``, with a temperature a cluster.

    Li et al., "Prototypical Contrastive Learning", arXiv 2005.04966, ProtoNCE without its InfoNCE
    part; MEOW and GMM-GCD use it too. (MEOW's denominator is the mean over centres times the rows
    N: another constant, ``log(N / K)``, the same gradient.) `cluster_temperatures` makes phi.

    Args:
        temperature: of all clusters where the step passes no ref_temperature, positive.
        normalize: scale features to length 1; the centres are taken as they are.

    Shapes: features ``(B, D)``, target ``(B,)`` the row's cluster, -1 for none; ref_features
    ``(K, D)`` the centres and ref_temperature ``(K,)``, the same on every rank, without gradient;
    per-row values ``(B,)`` in nats, 0 for no cluster.
    """

    scope = "rows"
    contract = Contract(target=("label",), head="none")

    def __init__(self, temperature: float = 0.1, normalize: bool = True) -> None:
        super().__init__()
        if not temperature > 0:
            raise ValueError(f"temperature must be positive, got {temperature}.")
        self.temperature, self.normalize = temperature, normalize

    def forward(
        self,
        features: Tensor,
        target: Tensor,
        ref_features: Tensor,
        ref_temperature: Tensor | None = None,
        valid: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(B,)``."""
        if features.ndim != 2:
            raise ValueError(f"features must be (B, D), got {tuple(features.shape)}.")
        same_rows(features=features, target=target)
        if ref_features.ndim != 2 or ref_features.shape[1] != features.shape[-1]:
            raise ValueError(
                f"ref_features must be the centres (K, {features.shape[-1]}), got "
                f"{tuple(ref_features.shape)}."
            )
        if len(target) and may_ask(target) and int(target.max()) >= len(ref_features):
            raise ValueError(
                f"target must be below {len(ref_features)}, the rows of ref_features, found "
                f"{int(target.max())}: pass the cluster of each row, -1 for none."
            )
        if ref_temperature is not None and ref_temperature.shape != ref_features.shape[:1]:
            raise ValueError(
                f"ref_temperature must be ({len(ref_features)},), one a centre, got "
                f"{tuple(ref_temperature.shape)}."
            )
        counts = target >= 0 if valid is None else valid & (target >= 0)
        x = torch.where(counts[:, None], features, 0)
        x = unit(x) if self.normalize else x
        phi = self.temperature if ref_temperature is None else ref_temperature.detach()
        z = (x @ ref_features.detach().t().to(x.dtype)).clamp(min=LOWEST) / phi
        own = torch.where(counts, target, 0)
        value = z.logsumexp(1) - z.gather(1, own[:, None])[:, 0]
        return torch.where(counts, value, 0) + x.sum(1) * 0


def cluster_temperatures(
    features: Tensor, target: Tensor, centres: Tensor, mean: float = 0.1, smooth: float = 5.0
) -> Tensor:
    """phi ``(K,)``: the tighter a cluster and the more rows it has, the colder; ``mean`` is theirs.

    ``mean distance^(1/2) / log(n + smooth)`` of features ``(N, D)`` to their cluster's centre, held
    between the 10th and the 90th percentile, as PCL's code has it; a cluster with fewer than two
    rows gets the largest.
    """
    apart = (features - centres[target]).norm(dim=1).sqrt()
    count = torch.zeros_like(centres[:, 0]).index_add(0, target, torch.ones_like(apart))
    total = torch.zeros_like(count).index_add(0, target, apart)
    phi = total / count.clamp(min=1) / (count + smooth).log()
    phi = torch.where(count > 1, phi, torch.where(count > 1, phi, 0).max())
    low, high = phi.quantile(0.1), phi.quantile(0.9)
    phi = phi.clamp(low, high)
    scaled: Tensor = phi * (mean / phi.mean())
    return scaled
