# SPDX-FileCopyrightText: 2026 The lightning-losses authors
# SPDX-License-Identifier: Apache-2.0
"""`PairLoss`: which rows are pairs, over ranks and views, and how their similarities are met.

A pair loss compares every anchor, a row of this rank, with every column: the rows of all ranks, or
a reference set. Who is whose positive is settled here once; a loss is one function of a block of
similarities and two masks. Anchors go through in blocks, and what a block made of its similarities
is computed again in the backward pass: the similarities are all that is kept of the square of the
batch, and beyond `LARGE` of them not even these, so that memory is linear.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from lightning_losses.contract import Contract
from lightning_losses.distributed import (
    all_sum,
    gather_with_gradient,
    reduce_with_gradient,
    row_offset,
    world_size,
)
from lightning_losses.losses.shared.mining import Mining, check_mining, mine
from lightning_losses.losses.shared.rows_math import LOWEST, unit

#: Similarities that are kept for the backward pass, 64 MiB in float32; beyond, none is.
LARGE = 2**24

#: Similarities of a block on a CPU: what is made of them then stays in its cache, and in memory
#: that need not be asked for again. Elsewhere a block is as large as `LARGE` allows.
CPU_BLOCK = 2**20

#: ``(similarity, positive, negative) -> rows``: of a block ``(n, M)``, one or more ``(n,)``.
BlockFunction = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, ...]]


@dataclass(frozen=True)
class Side:
    """One side of the pairs: unit vectors and what says which of them belong together."""

    x: Tensor  # (n, D) unit vectors
    valid: Tensor  # (n,) bool, rows that count
    sample: Tensor  # (n,) int64, one number a sample: views of it share it; -1 for none
    target: Tensor | None  # (n,) int64, -1 where not labelled
    label_set: Tensor | None  # (n, L), 0 or 1

    def rows(self, start: int, stop: int) -> Side:
        """Anchors start to stop, as views."""
        cut = (None if t is None else t[start:stop] for t in self.parts())
        return Side(*cut)  # type: ignore[arg-type]

    def parts(self) -> tuple[Tensor | None, ...]:
        """The tensors, in order."""
        return self.x, self.valid, self.sample, self.target, self.label_set

    def codes(self, labels: bool, nobody: int) -> tuple[Tensor, Tensor]:
        """A number ``(n,)`` that positives share, and which rows ``(n,)`` have negatives.

        Args:
            labels: rows of one label are positives; if not, and where there is no label, views of
                one sample alone.
            nobody: the number of rows that do not count, another one on either side; negative.
        """
        code = torch.where(self.valid & (self.sample >= 0), -3 - self.sample, nobody)
        if not labels or self.target is None:
            return code, self.valid
        known = self.valid & (self.target >= 0)
        return torch.where(known, self.target, code), known


@dataclass(frozen=True)
class Pairs:
    """Anchors of this rank, columns of all ranks, and the masks of their pairs, block by block."""

    anchors: Side
    columns: Side
    itself: Tensor | None  # (n,) int64, the column of each anchor; None if anchors are no columns
    given: Tensor | None  # (n, M) bool, positives as the caller says
    views: int

    def each(self, function: BlockFunction) -> tuple[Tensor, ...]:
        """The function of every anchor, ``(n,)`` each, over blocks of anchors."""

        def block(similarity: Tensor, start: int, stop: int) -> tuple[Tensor, ...]:
            return function(similarity, *self.masks(start, stop))

        return over_blocks(block, self.anchors.x, self.columns.x)

    def masks(self, start: int, stop: int) -> tuple[Tensor, Tensor]:
        """Positives and negatives ``(stop - start, M)`` of anchors; a row is no pair of itself.

        Where either side is not labelled there is no pair, but between views of one sample.
        """
        a, b = self.anchors.rows(start, stop), self.columns
        sets = a.label_set is not None and b.label_set is not None
        labels = self.given is None and not sets and a.target is not None and b.target is not None
        # One comparison for all: few passes over (n, M) are what the time goes into.
        (code, known), (codes, knowns) = a.codes(labels, -1), b.codes(labels, -2)
        positive = code[:, None] == codes[None, :]
        both = known[:, None] & knowns[None, :]
        if self.given is not None:
            positive |= self.given[start:stop] & both
        elif sets:
            # In float32: integers have no fast product, and no set has 2^24 labels.
            shared = a.label_set.float() @ b.label_set.float().t() > 0  # type: ignore[union-attr]
            positive |= shared & both
        negative = both > positive  # both, and not positive
        if self.itself is not None:
            column = self.itself[start:stop, None]
            positive, negative = (m.scatter(1, column, False) for m in (positive, negative))
        return positive, negative

    def per_sample(self, values: Tensor) -> Tensor:
        """Mean over the views of a sample: anchors ``(n,)`` -> rows ``(B,)``."""
        return values if self.views == 1 else values.reshape(-1, self.views).mean(1)

    def nothing(self) -> Tensor:
        """0, connected to every feature; NaN if one of them is, which masks would hide."""
        # Twice times 0: a sum of large numbers would overflow.
        return (self.anchors.x * 0).sum() + (self.columns.x.detach() * 0).sum()


def over_blocks(
    function: Callable[[Tensor, int, int], tuple[Tensor, ...]], x: Tensor, columns: Tensor
) -> tuple[Tensor, ...]:
    """``function(x[start:stop] @ columns.T, start, stop)`` over all rows, ``(n,)`` each.

    In one block where it is small; in several otherwise, each computed again in the backward pass
    instead of kept, but for its similarities up to `LARGE` of them.
    """
    n, m = len(x), max(1, len(columns))
    if n * m <= (CPU_BLOCK if x.device.type == "cpu" else LARGE):
        return function(x @ columns.t(), 0, n)

    def again(inner: Callable[..., tuple[Tensor, ...]], *args: Any) -> tuple[Tensor, ...]:
        found = checkpoint(inner, *args, use_reentrant=False, preserve_rng_state=False)
        return found  # type: ignore[no-any-return]

    def whole(rows: Tensor, start: int, stop: int) -> tuple[Tensor, ...]:
        return function(rows @ columns.t(), start, stop)

    size = max(1, (CPU_BLOCK if x.device.type == "cpu" else LARGE // 4) // m)
    blocks = []
    # Split, not sliced: the gradient of a slice is as large as what it was cut from.
    for i, rows in enumerate(torch.split(x, size)):
        place = i * size, i * size + len(rows)
        if n * m <= LARGE:
            blocks.append(again(function, rows @ columns.t(), *place))
        else:
            blocks.append(again(whole, rows, *place))
    return tuple(torch.cat(parts) for parts in zip(*blocks, strict=True))


def make_pairs(
    features: Tensor,
    target: Tensor | None = None,
    valid: Tensor | None = None,
    label_set: Tensor | None = None,
    pair_mask: Tensor | None = None,
    ref_features: Tensor | None = None,
    ref_target: Tensor | None = None,
) -> Pairs:
    """Pairs of features ``(B, D)`` or ``(B, views, D)``; see `PairLoss` for the arguments."""
    views = features.shape[1] if features.ndim == 3 else 1
    if features.ndim not in (2, 3):
        raise ValueError(
            f"features must be (B, D) or (B, views, D), got {tuple(features.shape)}: write "
            "features.flatten(1)."
        )
    rows = len(features)
    for name, value in (("target", target), ("label_set", label_set), ("valid", valid)):
        if value is not None and len(value) != rows:
            raise ValueError(
                f"features and {name} must have as many rows, got {rows} and {len(value)}: pass "
                "row i of each for sample i; views go into features (B, views, D)."
            )
    _check_references(features, target, ref_features, ref_target)
    if valid is None:
        valid = torch.ones(rows, dtype=torch.bool, device=features.device)
    # By where, before the product: 0 times inf is NaN.
    shape = (rows, *[1] * (features.ndim - 1))
    x = unit(
        torch.where(valid.reshape(shape), features, 0).reshape(rows * views, features.shape[-1])
    )

    def repeat(value: Tensor | None) -> Tensor | None:
        return None if value is None else value.repeat_interleave(views, 0)

    valid = valid.repeat_interleave(views, 0)
    first = row_offset(x) // views
    sample = torch.arange(first, first + rows, device=x.device).repeat_interleave(views, 0)
    anchors = Side(x, valid, sample, repeat(target), repeat(label_set))
    if ref_features is None:
        gathered = (None if t is None else gather_with_gradient(t) for t in anchors.parts())
        columns = Side(*gathered)  # type: ignore[arg-type]
        itself = torch.arange(len(x), device=x.device) + row_offset(x)
    else:
        ones = torch.ones(len(ref_features), dtype=torch.bool, device=x.device)
        none = torch.full((len(ref_features),), -1, device=x.device)
        columns = Side(unit(ref_features), ones, none, ref_target, None)
        itself = None
    if pair_mask is not None:
        needed = (rows, len(columns.x) // views)
        if tuple(pair_mask.shape) != needed:
            raise ValueError(
                f"pair_mask must be {needed}, a row a sample of this rank and a column a sample of "
                f"all ranks (or of ref_features), got {tuple(pair_mask.shape)}."
            )
        pair_mask = pair_mask.bool().repeat_interleave(views, 0).repeat_interleave(views, 1)
    return Pairs(anchors, columns, itself, pair_mask, views)


def _check_references(
    features: Tensor, target: Tensor | None, ref: Tensor | None, ref_target: Tensor | None
) -> None:
    """Raise ValueError for references without their labels, or of another shape."""
    if (ref_target is not None) != (ref is not None and target is not None):
        raise ValueError(
            "ref_features go with ref_target as features go with target; the two go together: pass "
            "both, the same on every rank, or neither."
        )
    if ref is None:
        return
    if ref.ndim != 2 or ref.shape[1] != features.shape[-1]:
        raise ValueError(
            f"ref_features must be (M, {features.shape[-1]}) as features {tuple(features.shape)}, "
            f"got {tuple(ref.shape)}."
        )
    if ref_target is not None and len(ref_target) != len(ref):
        raise ValueError(
            f"ref_features and ref_target must have as many rows, got {len(ref)} and "
            f"{len(ref_target)}: pass the label of each reference."
        )


class PairLoss(nn.Module):
    """A loss on pairs of rows: anchors of this rank against the rows of all ranks.

    Rows of one target are positives of each other, all others negatives; a target of -1 is not
    labelled and pairs with nobody but its own views. Features are scaled to length 1.

    Its diagnostics hold ``active``: the share of rows (of a row's pairs, where a loss says so) that
    contribute. 0 is a batch without pairs, or a problem that is solved. Under mining also
    ``mined``: the share of a row's pairs that were kept.

    Args:
        mining: which of an anchor's pairs are kept, of those with the rows of all ranks:
            ``all``; ``hard``: its farthest positive and nearest negative ("batch hard");
            ``hard_negative``: all positives, the nearest negative; ``semihard``: the farthest
            positive and the nearest negative beyond it; ``easy_positive``: the nearest positive
            and the nearest negative beyond it; ``{epsilon: 0.1}``: multi-similarity's, negatives
            whose cosine is above the hardest positive's less epsilon, and positives below the
            hardest negative's plus epsilon; or ranges of Euclidean distance, between 0 and 2, as
            ``{positives: [0.2, 2], negatives: [0, 0.8]}``.

    Args of ``forward``:
        features: ``(B, D)``, or ``(B, views, D)``, where views of a sample are positives.
        target: ``(B,)`` int64 labels; or one of the next two.
        label_set: ``(B, L)`` of 0 and 1: rows that share a label are positives.
        pair_mask: ``(B, M)`` bool, M the rows of all ranks: True for positives.
        ref_features, ref_target: ``(R, D)``, ``(R,)``: columns instead of the batch itself, the
            same on every rank, as a memory of earlier batches or the gallery of a retrieval.
    """

    scope = "pairs"
    contract = Contract(target=("label", "none"), head="none")
    diagnostics: dict[str, Tensor]

    def __init__(self, mining: Mining = "all") -> None:
        super().__init__()
        self.mining = check_mining(mining)

    def forward(
        self,
        features: Tensor,
        target: Tensor | None = None,
        valid: Tensor | None = None,
        label_set: Tensor | None = None,
        pair_mask: Tensor | None = None,
        ref_features: Tensor | None = None,
        ref_target: Tensor | None = None,
    ) -> Tensor:
        """Per-row values ``(B,)``, or one number where the loss is a mean over active pairs."""
        if target is None and label_set is None and pair_mask is None and features.ndim == 2:
            raise ValueError(
                f"{type(self).__name__} must know which rows are positives of each other: pass "
                "target (B,), label_set (B, L), pair_mask (B, M), or features (B, views, D)."
            )
        if target is not None and target.is_floating_point():
            raise ValueError(
                f"target must be labels of an integer dtype, got {target.dtype}: write "
                "target.long(), or pass multi-hot labels as label_set=."
            )
        pairs = make_pairs(features, target, valid, label_set, pair_mask, ref_features, ref_target)
        if not len(pairs.columns.x):  # no rows on any rank: no columns to look at
            return pairs.per_sample(pairs.anchors.x.sum(1))
        return self.of_pairs(pairs)

    def each(self, pairs: Pairs, function: BlockFunction) -> tuple[Tensor, ...]:
        """The function of every anchor, ``(n,)`` each, of the pairs that mining keeps.

        Begins the diagnostics.
        """
        self.diagnostics = {}
        if self.mining == "all":
            return pairs.each(function)

        def mined(s: Tensor, pos: Tensor, neg: Tensor) -> tuple[Tensor, ...]:
            kept = mine(self.mining, s.detach(), pos, neg)
            some, all_of_them = ((a | b).sum(1) for a, b in (kept, (pos, neg)))
            return *function(s, *kept), some / all_of_them.clamp(min=1)

        *values, share = pairs.each(mined)
        self.diagnostics["mined"] = pairs.per_sample(share)
        return tuple(values)

    def of_pairs(self, pairs: Pairs) -> Tensor:
        """Per-row values ``(B,)`` or a scalar, of pairs over all ranks."""
        raise NotImplementedError


def mean_of_active(total: Tensor, active: Tensor) -> Tensor:
    """Sum of ``total`` over sum of ``active``, both over all ranks; 0 where nothing is active.

    What pytorch-metric-learning calls the average over non-zero losses: it never shrinks towards 0
    as a problem is solved, since what is solved leaves the mean.
    """
    count = all_sum(active.sum().to(total.dtype))
    summed = reduce_with_gradient(total.sum()) if world_size() > 1 else total.sum()
    return summed / count.clamp(min=1)


def masked_logsumexp(x: Tensor, mask: Tensor) -> Tensor:
    """``log sum exp`` of each row over the mask, ``(n,)``; about `LOWEST` where it is empty."""
    if not x.shape[1]:
        return x.sum(1) + LOWEST
    x = torch.where(mask, x, LOWEST)
    top = x.detach().amax(1, keepdim=True)
    # What is e^-60 of the largest adds nothing in any dtype, and exp of -88 and less takes a
    # processor more than ten times as long, as everything does that is subnormal.
    return top.squeeze(1) + (x - top).clamp(min=-60).exp().sum(1).log()


def distance(similarity: Tensor) -> Tensor:
    """Euclidean distance of unit vectors from their cosine; 0 with gradient 0 for duplicates."""
    squared = 2 - 2 * similarity
    apart = squared > 0
    return torch.where(apart, torch.where(apart, squared, 1).sqrt(), 0)
