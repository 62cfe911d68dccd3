# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""Losses whose class centres are their own parameters."""

from __future__ import annotations

import math
from typing import Any, Literal

import torch
from torch import Tensor, nn

from lightning_losses.contract import Contract
from lightning_losses.distributed import gather_with_gradient, holds_other_rows, is_on_mesh
from lightning_losses.losses.shared.pairs import masked_logsumexp
from lightning_losses.losses.shared.rows_math import unit
from lightning_losses.losses.shared.validation import same_rows
from lightning_losses.softmax import ClassRange, may_ask, softmax_stats


class ClassCenters(nn.Module):
    """A loss that owns ``weight (num_classes, in_features)``, one centre a class.

    The centres are parameters of the objective: they are in the module's checkpoint and its
    `parameters()`; `LossMixin.parameter_groups` gives them options of their own. Every rank holds
    all of them, and data-parallel training keeps them equal. Too many for that: split them over
    ranks that hold the same rows (a partial softmax), as tensor parallelism splits a head::

        centres = distribute_tensor(loss.weight, mesh["tensor"], [Shard(0)])
        loss.weight = torch.nn.Parameter(centres)

    before the optimizer is made; with data-parallel ranks beside them then
    ``fully_shard(self.loss, mesh=mesh["data"])``, as for all that tensor parallelism splits. Value
    and gradients are those of whole centres; optimizer and distributed checkpoints know such a
    parameter.

    Shapes: features ``(B, in_features)``, target ``(B,)`` class indices, negative for none; per-row
    values ``(B,)``, 0 for no class.
    """

    scope = "rows"
    contract = Contract(target=("label",), head="none")

    weight: nn.Parameter | None

    def __init__(self, in_features: int | None = None, num_classes: int | None = None) -> None:
        super().__init__()
        if in_features is None or num_classes is None:
            self.register_parameter("weight", None)
            return
        if in_features < 1 or num_classes < 1:
            raise ValueError(
                f"in_features and num_classes must be positive, got {in_features} and "
                f"{num_classes}."
            )
        self.weight = nn.Parameter(torch.empty(num_classes, in_features))
        nn.init.normal_(self.weight, std=in_features**-0.5)

    def rows(
        self, features: Tensor, target: Tensor, valid: Tensor | None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Features with 0 in rows that do not count, class indices, and which rows count."""
        classes, width = self._weight().shape  # all classes, if they are split as well
        if features.ndim != 2 or features.shape[1] != width:
            raise ValueError(
                f"features must be (B, {width}) as in_features says, got {tuple(features.shape)}."
            )
        same_rows(features=features, target=target)
        if len(target) and may_ask(target) and int(target.max()) >= classes:
            raise ValueError(
                f"target must be below num_classes={classes}, found {int(target.max())}."
            )
        counts = target >= 0 if valid is None else valid & (target >= 0)
        return torch.where(counts[:, None], features, 0), torch.where(counts, target, 0), counts

    def _weight(self) -> Tensor:
        if self.weight is None:
            raise ValueError(
                f"{type(self).__name__} must know how many centres there are, and their length: "
                "write in_features=64 num_classes=10, with your numbers."
            )
        return self.weight

    @property
    def held(self) -> ClassRange | None:
        """The classes of this rank; None for all."""
        weight = self._weight()
        return _range_of(weight) if is_on_mesh(weight) else None

    def centers(self, like: Tensor) -> Tensor:
        """The centres ``(num_classes, in_features)``, or this rank's, in the dtype of a tensor."""
        weight = self._weight()
        local: Tensor = weight.to_local() if is_on_mesh(weight) else weight  # type: ignore[attr-defined]
        return local.to(like.dtype)

    def cosines(self, features: Tensor) -> Tensor:
        """Cosines ``(B, num_classes)`` of features and the centres of this rank."""
        held, x = self.held, unit(features)
        return (x if held is None else held.enter(x)) @ unit(self.centers(features)).t()

    def own(self, y: Tensor) -> Tensor:
        """Which column is the row's class, ``(B, num_classes)``, of the classes of this rank."""
        held = self.held
        first, last = (0, len(self._weight())) if held is None else held[:2]
        return y[:, None] == torch.arange(first, last, device=y.device)

    def normalizer_and_own(self, z: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
        """``log sum exp`` over all classes, and the logit of the own one, ``(B,)`` each."""
        held = self.held
        if held is None:
            return z.logsumexp(1), z.gather(1, y[:, None])[:, 0]
        want = ("logsumexp", "log_prob")
        stats = softmax_stats(z, target=y, class_range=held, want=want)
        assert stats.logsumexp is not None
        assert stats.log_prob is not None
        return stats.logsumexp, stats.logsumexp + stats.log_prob


def _range_of(weight: Any) -> ClassRange | None:
    """The classes of a DTensor's rows on this rank, with the ranks that hold the others."""
    from torch.distributed.tensor._utils import compute_local_shape_and_global_offset

    mesh, places = weight.device_mesh, weight.placements
    split = [i for i, place in enumerate(places) if not place.is_replicate() and mesh.size(i) > 1]
    if not split:
        return None
    if len(split) > 1 or not places[split[0]].is_shard(0):
        raise ValueError(
            f"centres are split by classes along one dimension of a mesh, got {tuple(places)}: "
            'write distribute_tensor(loss.weight, mesh["tensor"], [Shard(0)]).'
        )
    names = mesh.mesh_dim_names
    if holds_other_rows(None if names is None else names[split[0]]):
        raise ValueError(
            f"centres are split over {names[split[0]]}, ranks that hold other rows, as FSDP2 does; "
            "it gathers them where the objective is called: write fully_shard(self.loss, mesh=...) "
            "and call compute_loss. For a partial softmax split them over tensor ranks."
        )
    classes, ranks = len(weight), mesh.size(split[0])
    if -(-classes // ranks) * (ranks - 1) >= classes:  # torch splits into pieces of equal size
        raise ValueError(
            f"{classes} classes split over {ranks} ranks leave one without any: use fewer ranks."
        )
    shape, offset = compute_local_shape_and_global_offset(weight.shape, mesh, places)
    first, group = offset[0], mesh.get_group(split[0])
    return ClassRange(first, first + shape[0], classes, group)


class AdaptiveMarginSoftmax(ClassCenters):
    """Cross-entropy of ``s (cos - m [k = y])``; scale s and margin m follow from the batch.

    MadaCos of Zhu et al., "Coarse-to-Fine: Learning Compact Discriminative Representation for
    Single-Stage Image Retrieval" (CFCD), arXiv 2308.04008. Of the median target cosine ``med`` of
    the rows of all ranks: ``s = ln(9999999 (1 - alpha) / alpha) / (1 - med)``, so that even there
    the loss can vanish, and ``m = med - ln(B alpha / (1 - alpha)) / s``, so that the median row's
    probability is alpha, B being its ``sum exp(s cos)`` over the other classes. Both without
    gradient; without margin in evaluation. Diagnostics: ``margin`` and ``scale``.

    The paper goes on with a triplet loss of hard negatives between local descriptors that the model
    matches, which is the model's part; between features it is ``triplet_margin`` with
    ``mining: hard`` beside this loss, ``weight: {start: 0, end: 1, delay: 1000, steps: 100}`` to
    begin late.

    Args:
        in_features: D.
        num_classes: C.
        alpha: probability of the median row, between 0 and 1; the paper has 0.02.
        others: B of the ``median_row``, or the ``mean`` or ``median`` over rows.
        min_scale: s is no smaller.
        max_scale: and no larger: where features fit perfectly it would be infinite.

    Shapes: as `ClassCenters`.
    """

    scope = "batch"
    diagnostics: dict[str, Tensor]

    def __init__(
        self,
        in_features: int | None = None,
        num_classes: int | None = None,
        alpha: float = 0.02,
        others: Literal["median_row", "mean", "median"] = "median_row",
        min_scale: float = 32.0,
        max_scale: float = 1024.0,
    ) -> None:
        super().__init__(in_features, num_classes)
        if not 0 < alpha < 1 or not 0 < min_scale <= max_scale:
            raise ValueError(
                "alpha must be between 0 and 1 and 0 < min_scale <= max_scale, got "
                f"{alpha}, {min_scale}, {max_scale}."
            )
        if others not in ("median_row", "mean", "median"):
            raise ValueError(f"others must be median_row, mean or median, got {others!r}.")
        self.alpha, self.others = alpha, others
        self.min_scale, self.max_scale = min_scale, max_scale

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y, counts = self.rows(features, target, valid)
        cosine = self.cosines(x)
        own = self.own(y)
        scale, margin = self._statistics(cosine.detach(), own, counts)
        if not self.training:
            margin = margin * 0
        self.diagnostics = {"margin": margin, "scale": scale}
        z = scale * torch.where(own, cosine - margin, cosine)
        normalizer, logit = self.normalizer_and_own(z, y)
        return torch.where(counts, normalizer - logit, 0)

    def _statistics(self, cosine: Tensor, own: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
        """Scale and margin, 0-dim, of the rows of all ranks."""
        everyone = gather_with_gradient(counts)
        held = self.held
        reached = torch.where(own, cosine, 0).sum(1)
        reached = gather_with_gradient(reached if held is None else held.total(reached))
        if not len(everyone):
            return cosine.new_full((), self.min_scale), cosine.new_zeros(())
        order = torch.where(everyone, reached, torch.inf).argsort()
        middle = ((everyone.sum() - 1) // 2).clamp(min=0)  # the lower median
        row = order.gather(0, middle[None])
        median = torch.where(everyone.any(), reached.gather(0, row)[0], 0)
        odds = math.log(9999999 * (1 - self.alpha) / self.alpha)
        gap = (1 - median).clamp(min=odds / self.max_scale)
        scale = (odds / gap).clamp(self.min_scale, self.max_scale)
        # In logarithms: exp(s cos) overflows float32 beyond s cos = 88.
        log_b = masked_logsumexp(scale * cosine, ~own)
        if held is not None:  # from those of every rank's classes
            log_b = held.stacked(log_b).logsumexp(0)
        log_b = gather_with_gradient(log_b)
        if self.others == "median_row":
            log_b = log_b.gather(0, row)[0]
        elif self.others == "mean":
            log_b = masked_logsumexp(log_b[None], everyone[None])[0]
            log_b = log_b - everyone.sum().clamp(min=1).to(log_b.dtype).log()
        else:
            order = torch.where(everyone, log_b, torch.inf).sort().values
            log_b = order.gather(0, middle[None])[0]
        margin = median - (log_b + math.log(self.alpha / (1 - self.alpha))) / scale
        # Of one class alone B is 0 and its logarithm about -1e30.
        several = len(self._weight()) > 1
        margin = torch.where(everyone.any() & several, margin.clamp(min=0), 0)
        return scale, margin


class MarginCalibration(ClassCenters):
    """ArcFace on prototypes with a floor under the sine: ``s cos(angle + m)`` for the own class.

    TALON's calibration of margins; its whole objective adds ``supcon`` (temperature 0.08) on two
    views. Where ``angle + m`` would pass pi the cosine is lowered by ``m sin(m)`` instead.

    Args:
        in_features: D.
        num_classes: C.
        scale: s, positive.
        margin: m, in radians.
        sine_floor: least squared sine, which bounds the slope at small angles.

    Shapes: as `ClassCenters`.
    """

    def __init__(
        self,
        in_features: int | None = None,
        num_classes: int | None = None,
        scale: float = 30.0,
        margin: float = 0.2,
        sine_floor: float = 1e-6,
    ) -> None:
        super().__init__(in_features, num_classes)
        if not (scale > 0 and sine_floor > 0):
            raise ValueError(
                f"scale and sine_floor must be positive, got {scale} and {sine_floor}."
            )
        self.scale, self.margin, self.sine_floor = scale, margin, sine_floor

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y, counts = self.rows(features, target, valid)
        cosine, m = self.cosines(x), self.margin
        sine = (1 - cosine.square()).clamp(min=self.sine_floor).sqrt()
        turned = cosine * math.cos(m) - sine * math.sin(m)
        turned = torch.where(cosine > math.cos(math.pi - m), turned, cosine - m * math.sin(m))
        own = self.own(y)
        z = self.scale * torch.where(own, turned, cosine)
        normalizer, logit = self.normalizer_and_own(z, y)
        return torch.where(counts, normalizer - logit, 0)


class UnifiedNegativePairs(ClassCenters):
    """CosFace whose softmax also holds the similarities of rows of different classes.

    Jung et al., "Unified Negative Pair Generation toward Well-discriminative Feature Space for Face
    Recognition" (UNPG), arXiv 2203.11593. Of the similarities v of all pairs of rows of two
    classes, those between ``Q1 - whisker IQR`` and ``Q3 + whisker IQR`` are negatives of every row.

    Args:
        in_features: D.
        num_classes: C.
        scale: s, positive.
        margin: m, in cosine.
        whisker: in interquartile ranges, at least 0.

    Shapes: as `ClassCenters`. Pairs are those of the rows of all ranks (the authors keep to one
    rank); memory is quadratic in these. The diagnostic ``kept`` is the share of pairs kept.
    """

    scope = "pairs"
    diagnostics: dict[str, Tensor]

    def __init__(
        self,
        in_features: int | None = None,
        num_classes: int | None = None,
        scale: float = 64.0,
        margin: float = 0.5,
        whisker: float = 1.5,
    ) -> None:
        super().__init__(in_features, num_classes)
        if not scale > 0 or not whisker >= 0:
            raise ValueError(
                f"scale must be positive and whisker at least 0, got {scale} and {whisker}."
            )
        self.scale, self.margin, self.whisker = scale, margin, whisker

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(B,)``."""
        x, y, counts = self.rows(features, target, valid)
        cosine = self.cosines(x)
        own = self.own(y)
        z = self.scale * torch.where(own, cosine - self.margin, cosine)
        pairs = self._negative_pairs(unit(x), y, counts)
        normalizer, logit = self.normalizer_and_own(z, y)
        return torch.where(counts, torch.logaddexp(normalizer, pairs) - logit, 0)

    def _negative_pairs(self, x: Tensor, y: Tensor, counts: Tensor) -> Tensor:
        """``log sum exp`` of ``s v`` over the pairs that are kept, 0-dim."""
        x, y, counts = (gather_with_gradient(part) for part in (x, y, counts))
        if not len(x):
            return x.sum()
        # Each pair once: columns after the row.
        later = torch.ones(len(x), len(x), dtype=torch.bool, device=x.device).triu(1)
        pair = later & (y[:, None] != y) & counts[:, None] & counts
        v, pair = (x @ x.t()).flatten(), pair.flatten()
        number = pair.sum()
        ranked = torch.where(pair, v.detach(), torch.inf).sort().values
        at = torch.stack([number * 1 // 4, number * 3 // 4])
        first, third = ranked.gather(0, at.clamp(max=len(v) - 1))
        reach = self.whisker * (third - first)
        kept = pair & (v >= first - reach) & (v <= third + reach)
        self.diagnostics = {"kept": kept.sum() / number.clamp(min=1)}
        return masked_logsumexp(self.scale * v[None], kept[None])[0]


class ProtoTriplet(ClassCenters):
    """``relu(d(x, own centre) - d(x, nearest other centre) + margin)``, Euclidean distances.

    "SuSana Distancia is all you need" (few-shot learning, 2023): a triplet of a query, its class's
    prototype and the nearest other, with ``d = sqrt(|x - c|^2 + 1e-6)``. In few-shot episodes write
    prototypes into ``weight``; here they are learned.

    Args:
        in_features: D.
        num_classes: C; with one alone the value is 0.
        margin: at least 0.

    Shapes: as `ClassCenters`. The diagnostic ``active`` is the share of rows above 0.
    """

    diagnostics: dict[str, Tensor]

    def __init__(
        self,
        in_features: int | None = None,
        num_classes: int | None = None,
        margin: float = 0.5,
    ) -> None:
        super().__init__(in_features, num_classes)
        if not margin >= 0:
            raise ValueError(f"margin must be at least 0, got {margin}.")
        self.margin = margin

    def forward(self, features: Tensor, target: Tensor, valid: Tensor | None = None) -> Tensor:
        """Per-row values ``(B,)``."""
        if self.held is not None:
            raise ValueError(
                "proto_triplet reads the nearest of all centres, so it takes them whole: leave "
                "its weight as it is, or write loss.weight = nn.Parameter(weight.full_tensor())."
            )
        x, y, counts = self.rows(features, target, valid)
        centres = self.centers(x)
        squared = x.square().sum(1, keepdim=True) - 2 * x @ centres.t() + centres.square().sum(1)
        d = (squared.clamp(min=0) + 1e-6).sqrt()
        own = self.own(y)
        near = torch.where(own, torch.inf, d).amin(1)
        value = (d.gather(1, y[:, None])[:, 0] - near + self.margin).relu()
        value = torch.where(counts & near.isfinite(), value, x.sum(1) * 0)
        self.diagnostics = {"active": value > 0}
        return value
